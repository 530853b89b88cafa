"""Opens data sets (the embedded sample, folders, TFDS, synthetic images) and caches them in memory."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.config.named_functions import names_function
from ssl_jax.data import (
  coco,
  coco_masks,
  folder,
  mask_folder,
  mask_layouts,
  python_data,
  splits,
  synthetic,
  video_folder,
  video_layouts,
  video_masks,
  voc_boxes,
)
from ssl_jax.data.decode import DecodeError, decode
from ssl_jax.data.elements import Elements, Record, ShapeDtype, Transform
from ssl_jax.data.folder_layout import find_splits
from ssl_jax.data.mask_values import FIELD as MASK_VALUES
from ssl_jax.data.mask_values import check_size, decode_classes
from ssl_jax.data.memory import MemoryReader
from ssl_jax.data.objects import Empty
from ssl_jax.data.reader import Reader, Source, cores
from ssl_jax.data.segments import FIELD as SEGMENTS

# (Images, classes) of data sets that are used without being present: in plans, and for imported weights that
# were trained on them.
SIZES = {
  "imagenet2012": (1_281_167, 1000),
  "cifar10": (50_000, 10),
  "cifar100": (50_000, 100),
  "sample": (7992, 10),
  "voc_masks": (10_582, 21),
  "cityscapes": (2_975, 19),
  "ade20k": (20_210, 150),
  "voc_boxes": (16_551, 20),
  "coco": (118_287, 80),
}
TRAIN_SPLITS = {  # the split that SIZES counts where it is not "train"
  "voc_masks": "train_aug",
  "voc_boxes": "2007/trainval+2012/trainval",
  "coco": "train2017",
}
_FOLDERS: dict[str, Callable[..., Source]] = {
  "folder": folder.open_folder,
  "mask_folder": mask_folder.open_mask_folder,
  "coco": coco.open_coco,
  "voc_boxes": voc_boxes.open_voc_boxes,
  "voc_masks": mask_layouts.open_voc_masks,
  "cityscapes": mask_layouts.open_cityscapes,
  "ade20k": mask_layouts.open_ade20k,
  "coco_masks": coco_masks.open_coco_masks,
  "camvid": mask_layouts.open_camvid,
  "video_folder": video_folder.open_video_folder,
  **{name: functools.partial(video_masks.open_videos, find) for name, find in video_layouts.LAYOUTS.items()},
}
WITH_OBJECTS = ("coco", "voc_boxes")  # sources that know which of their images have no objects
BUILT_IN = ("sample", *_FOLDERS, "synthetic")
SAMPLE = pathlib.Path(__file__).parent / "sample"  # from EuroSAT, under the MIT licence in its LICENSE
_CHUNK = 64  # images read in one call


def make(
  name: str, *, split: str = "train", data_dir: str = "", image_size: int = 32, empty: Empty = "keep"
) -> Source:
  """Opens a split of a data set. Nothing is decoded yet.

  Args:
    name: "sample" (embedded: 7,992 train and 2,000 test images of EuroSAT, 32x32), "folder" (PNG, JPEG
      and WebP files, see folder.py), "mask_folder" (pairs of image and mask, see mask_folder.py), "coco"
      (boxes and masks of objects, see coco.py), "voc_boxes" (see voc_boxes.py), "voc_masks", "cityscapes",
      "ade20k", "camvid" (masks, see mask_layouts.py), "coco_masks" (masks, see coco_masks.py), "video_folder"
      (clips, see video_folder.py), "video_masks", "davis", "kitti_step" (frames of videos with masks, see
      video_masks.py), "cityscapes_vps", "youtube_vos", "coco_videos" (the same, see video_layouts.py),
      "synthetic" (generated, see synthetic.py), a TFDS data set (see tfds_records.py), or a function
      MODULE:FUNCTION that makes a data set (see python_data.py).
    split: in TFDS syntax: "train", "test", "train[:90%]", "train[100:200]", "train[:10%]+train[90%:]".
    data_dir: the folder of the images or, for a TFDS data set, the folder that holds the data sets; not
      needed for "sample", "synthetic" and functions.
    image_size: side of synthetic images, in pixels.
    empty: "drop" leaves out images without objects, see `objects.open_annotated`; only of WITH_OBJECTS.
  Raises: ValueError for a name, split or folder that does not exist, with those that do.
  """
  if empty != "keep" and name not in WITH_OBJECTS:
    raise ValueError(
      f"config.data.empty is {empty!r}, but {name!r} does not say which images have no objects; use 'keep', "
      f"or one of {', '.join(WITH_OBJECTS)}"
    )
  if name == "synthetic":
    return synthetic.open_synthetic(split, image_size)
  if name == python_data.GIVEN:
    raise ValueError(
      f"config.data.name is {name!r}: a program passed the data as an object, `ssl_jax.train(..., "
      "source=...)`; pass `source` here too, or name another data set"
    )
  if names_function(name):
    return python_data.open_function(name, split, os.path.expanduser(data_dir))
  if name != "sample" and not data_dir:
    raise ValueError(
      f"data set {name!r} needs data_dir, and it is empty; set it to the folder of images or "
      f"of TFDS data sets. Only sample and synthetic need no folder{_meant(name)}"
    )
  data_dir = os.path.expanduser(data_dir)
  if name in WITH_OBJECTS:
    return _FOLDERS[name](data_dir, split, empty=empty)
  if name in _FOLDERS:
    return _FOLDERS[name](data_dir, split)
  from ssl_jax.data import tfds_records  # here: importing TFDS takes half a second

  if name == "sample":
    return tfds_records.open_tfds("eurosat_sample", str(SAMPLE), split)
  return tfds_records.open_tfds(name, data_dir, split)


def open_split(name: str, *, split: str, data_dir: str = "", given: Any = None, **options) -> Source:
  """Opens a split as `make` does; of a folder without this split, what stands for it (`splits.stand_in`).

  `Source.note` tells which split was taken.

  Args:
    given: a data set that a program passes, see `python_data.open_objects`; None: the one called `name`.
  """
  if given is not None:
    return python_data.open_objects(given, split)
  chosen, note = split, ""
  if name == "folder" and os.path.isdir(os.path.expanduser(data_dir)):
    known = list(find_splits(pathlib.Path(data_dir).expanduser()))
    chosen, note = splits.stand_in(split, known)
  source = make(name, split=chosen, data_dir=data_dir, **options)
  return dataclasses.replace(source, note=note) if note else source


def shuffled(source: Source, seed: int = 0) -> Source:
  """Returns the same records in a random but fixed order: for streams of data that are sorted by class."""
  order = np.random.default_rng(seed).permutation(len(source))
  clip_names = tuple(source.clip_names[i] for i in order) if source.clip_names else ()
  reader = Reordered(source.reader, order)
  return dataclasses.replace(source, reader=reader, clip_names=clip_names, sorted_by_class=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Reordered:
  """A Reader with the records of another one in a different order."""

  origin: Reader
  order: np.ndarray  # i64[N]: indices in `origin`

  def __len__(self) -> int:
    return len(self.order)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return self.origin.read([int(self.order[i]) for i in indices])

  def name(self, index: int) -> str:
    return self.origin.name(int(self.order[index]))


def _meant(name: str) -> str:
  hint = nearest(name, BUILT_IN)
  return hint.partition("?")[0] + "?" if "?" in hint else ""


@dataclasses.dataclass(frozen=True)
class Decode:
  """A transform that only decodes; images and masks keep their size, which all records must share."""

  elements: Elements
  random: bool = False

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    return _decoded({name: record[name] for name in (*self.elements, MASK_VALUES) if name in record})


def cached(
  source: Source, *, transform: Transform | None = None, max_bytes: int = 16 * 2**30, threads: int = 0
) -> Source:
  """Decodes every record of a source into arrays in memory, once: for small data sets.

  As in the original source, a record that cannot be decoded raises DecodeError when it is read.

  Args:
    transform: a transform without randomness, whose elements are stored as the records of the new source;
      read them with `memory.Stored`. None: images and masks are only decoded and keep their size, which must
      be the same for all records.
    max_bytes: the largest size of all arrays together.
    threads: number of threads that decode; 0: one for each core.
  Raises: ValueError if records differ in shape, exceed `max_bytes`, or none can be decoded.
  """
  native = transform is None
  transform = transform or Decode(_native_elements(source))
  total = len(source) * sum(spec.size_in_bytes for spec in transform.elements.values())
  if total > max_bytes:
    image = transform.elements.get("image")
    raise ValueError(
      f"{len(source)} images of {image.shape if image else 'their size'} take {total / 2**30:.1f} GiB of "
      f"memory, the limit is {max_bytes / 2**30:.1f} GiB; set cache=False"
    )
  arrays = {
    name: np.zeros((len(source), *spec.shape), spec.dtype) for name, spec in transform.elements.items()
  }
  held = MemoryReader(arrays, {}, source.reader)
  fill = functools.partial(_fill, held, source, transform)
  with ThreadPoolExecutor(threads or cores()) as pool:
    list(pool.map(fill, range(0, len(source), _CHUNK)))
  shape = transform.elements["image"].shape if "image" in transform.elements else ()
  fields = tuple(f for f in source.fields if f in transform.elements) if native else tuple(transform.elements)
  return dataclasses.replace(
    source, reader=held, native_shape=shape if len(shape) == 3 else None, fields=fields
  )


def _fill(held: MemoryReader, source: Source, transform: Transform, start: int) -> None:
  """Decodes a chunk of records from `start` on into `held`."""
  indices = range(start, min(start + _CHUNK, len(source)))
  for i, record in zip(indices, source.read_each(indices), strict=True):
    try:
      if isinstance(record, DecodeError):
        raise record
      if "label" in held.arrays:
        held.arrays["label"][i] = record["label"]  # also if the image cannot be decoded
      made = transform(None, record)
    except DecodeError as error:
      held.bad[i] = str(error)
      continue
    for name, array in held.arrays.items():
      if np.shape(made[name]) != array.shape[1:]:
        raise ValueError(
          f"{source.name(i)} has {name} {np.shape(made[name])}, others have {array.shape[1:]}; records in "
          "memory must have one size: set cache=False"
        )
      array[i] = made[name]


def native_bytes(source: Source) -> int:
  """The memory that `cached` needs for a record without a transform, in bytes.

  Raises: ValueError if no record can be decoded.
  """
  return sum(spec.size_in_bytes for spec in _native_elements(source).values())


def _native_elements(source: Source) -> Elements:
  """Returns the shapes and dtypes of the first record that can be decoded."""
  if source.native_shape is not None and source.fields == ("image", "label"):
    return {"image": ShapeDtype(source.native_shape, np.uint8), "label": ShapeDtype((), np.int32)}
  for i in range(len(source)):
    try:
      made = {name: np.asarray(value) for name, value in _decoded(source[i]).items()}
    except (DecodeError, OSError):
      continue
    return {name: ShapeDtype(value.shape, _held_as(value.dtype)) for name, value in made.items()}
  raise ValueError(f"none of the {len(source)} images can be decoded, for example {source.name(0)}")


def _held_as(dtype: np.dtype) -> Any:
  """The dtype of a field in memory; text and bytes are objects, because their length differs by record."""
  return {"i": np.int32, "U": object, "S": object}.get(dtype.kind, dtype)


def _decoded(record: Record) -> dict[str, Any]:
  """Decodes the fields of a record that are encoded files; the mask becomes the class of each pixel."""
  made = {}
  for name, value in record.items():
    if name == "mask":
      made[name] = decode_classes(record)
    elif name not in (MASK_VALUES, SEGMENTS, "instances", "dense_points"):  # these have no fixed shape
      made[name] = decode(value) if isinstance(value, bytes) else value
  if "mask" in made and "image" in made:
    check_size(made["mask"], made["image"].shape[1::-1])
  return made
