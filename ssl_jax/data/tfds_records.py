"""Reads TFDS data sets that are stored as array_record.

Neither TensorFlow nor the code that prepared the data set is needed.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, cast

os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")

import tensorflow_datasets as tfds  # noqa: E402
from tensorflow_datasets.proto import tf_example_pb2  # noqa: E402

from ssl_jax.config.checked import nearest  # noqa: E402
from ssl_jax.data import decode, splits  # noqa: E402
from ssl_jax.data.elements import Record  # noqa: E402
from ssl_jax.data.mask_values import FIELD as MASK_VALUES  # noqa: E402
from ssl_jax.data.objects import FIELDS  # noqa: E402
from ssl_jax.data.reader import Source  # noqa: E402
from ssl_jax.data.tfds_arrays import StoredArrays, find_arrays  # noqa: E402
from ssl_jax.data.tfds_masks import StoredMasks, find_masks  # noqa: E402
from ssl_jax.data.tfds_objects import StoredObjects, find_objects  # noqa: E402

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"
_MANY = 64  # records from which on one bulk read is faster


@dataclasses.dataclass(frozen=True, eq=False)
class RecordReader:
  """Reads encoded images, masks, boxes and labels out of tf.train.Example records."""

  data_source: Any  # a tfds.core.data_sources.ArrayRecordDataSource that returns raw bytes
  image: str  # name of the image feature; "": none
  label: str  # name of the label feature; "": none
  title: str  # of the data set and split, for messages
  masks: StoredMasks | None = None
  objects: StoredObjects | None = None
  arrays: StoredArrays = StoredArrays({}, ())

  def __len__(self) -> int:
    return len(self.data_source)

  def read(self, indices: Sequence[int]) -> list[Record]:
    # A bulk read is much faster than single reads and waits for a slow disk only once, but it starts threads,
    # which is not worth while for a few records.
    many = len(indices) >= _MANY
    found = self.data_source.__getitems__(list(indices)) if many else [self.data_source[i] for i in indices]
    return [self._record(data) for data in found]

  def _record(self, data: bytes) -> Record:
    # Few features are needed: reading them takes a tenth of the time of TFDS's own deserialisation.
    example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]  # made at import
    features = example.FromString(data).features.feature
    label = features[self.label].int64_list.value[0] if self.label else -1
    record = {"label": label, **self.arrays.stored(features)}
    if self.image:
      record["image"] = features[self.image].bytes_list.value[0]
    if self.masks is not None:
      record["mask"] = self.masks.stored(features[self.masks.feature].bytes_list.value[0])
      if self.masks.classes.values is not None:
        record[MASK_VALUES] = self.masks.classes.values
    if self.objects is not None:
      record |= self.objects.stored(features, decode.open_image(record["image"]).size, label)
    return record

  def name(self, index: int) -> str:
    return f"{self.title}, record {index}"


def open_tfds(name: str, data_dir: str, split: str) -> Source:
  """Opens a data set that TFDS prepared with `file_format="array_record"`.

  If it has masks (see tfds_masks.py), boxes of objects (see tfds_objects.py), or arrays and sequences of
  images (see tfds_arrays.py), they are read too. The classes of the source are those of the labels, and, if
  there are no labels, those of the objects or masks.

  Args:
    name: the folder of the data set in `data_dir`: "cifar10", with a config "imagenet_resized/32x32", with a
      version "cifar10:3.0.2"; by default the highest version that exists.
    split: any split in TFDS syntax, such as "train[:90%]".
  Raises: ValueError for an unknown data set (with those in `data_dir`) or split, for another file format, or
    for a data set without images.
  """
  folder = find(name, data_dir)
  builder = cast(Any, tfds.builder_from_directory(folder))  # TFDS types every feature as optional
  if builder.info.file_format.value != "array_record":
    builder = _in_array_record(folder, builder.info.file_format.value)
  _stay_inside(builder, folder)
  features = builder.info.features
  masks = find_masks(builder.info.name, features)
  rest = {key: feature for key, feature in features.items() if masks is None or key != masks.feature}
  image = _feature(rest, tfds.features.Image, "image")
  label = _feature(features, tfds.features.ClassLabel, "label")
  arrays = find_arrays(cast(Any, features))
  if not image and not arrays.sequences:
    raise ValueError(f"{name} in {folder} has no image feature; it has {', '.join(features)}")
  objects = find_objects(builder.info.name, features, label)
  title = f"{builder.info.full_name} {split}"
  reader = RecordReader(_open(builder, split), image, label, title, masks, objects, arrays)
  shape: Any = features[image].shape[:2] if image else (None, None)
  native = None if None in shape else (*shape, 3)
  of_masks = masks.classes.names if masks else ()
  names = tuple(features[label].names) if label else objects.names if objects else of_masks
  fields = ("image", "mask", "label") if masks else ("image", "label") if image else ("label",)
  fields += (FIELDS[2:] if objects else ()) + arrays.fields
  return Source(reader, len(names), names, native, fields=fields, mask_names=of_masks if masks else None)


def find(name: str, data_dir: str) -> pathlib.Path:
  """Finds the folder of data set `name`.

  Raises: ValueError with the data sets that `data_dir` holds if `name` is none of them.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    remote = "; mount the bucket as a folder" if "://" in data_dir else ""
    raise ValueError(f"data_dir={data_dir!r} is not a folder{remote}; give the one that holds the data sets")
  folder = root / name.replace(":", "/")
  if (folder / _INFO).is_file():
    return folder
  versions = [path.parent for path in folder.glob(f"*/{_INFO}") if _VERSION.fullmatch(path.parent.name)]
  if versions:
    return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
  known = prepared(root)
  raise ValueError(
    f"no TFDS data set {name!r} in {data_dir}"
    + (
      nearest(name, known)
      if known
      else "; it holds no data set at all. Prepare one with tfds.builder(NAME, data_dir=DIR, "
      "file_format='array_record').download_and_prepare()"
    )
  )


def prepared(root: pathlib.Path) -> list[str]:
  """Lists the names of the data sets in `root`, with their configs."""
  found = [path.parent for depth in ("*/*", "*/*/*") for path in root.glob(f"{depth}/{_INFO}")]
  return sorted({path.parent.relative_to(root).as_posix() for path in found if _VERSION.fullmatch(path.name)})


def _in_array_record(folder: pathlib.Path, stored: str) -> Any:
  """Opens the data set from its array_record files. Raises ValueError if it has none."""
  if not any(folder.glob("*.array_record*")):
    raise ValueError(
      f"{folder} is stored as {stored}, which does not allow random access; prepare it again with "
      "file_format='array_record'"
    )
  return tfds.builder_from_directory(folder, file_format="array_record")


def _open(builder, split: str):
  splits.check_names(split, list(builder.info.splits), builder.info.full_name)
  try:
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw).data_source
    if len(source):
      return source
  except (ValueError, AssertionError) as error:
    raise ValueError(f"split={split!r} of {builder.info.full_name}: {error}") from error
  raise ValueError(f"split={split!r} of {builder.info.full_name} selects nothing; choose a larger part")


def _stay_inside(builder, folder: pathlib.Path) -> None:
  """Raises ValueError if a file of a split is outside `folder`: the JSON with the names is not trusted."""
  inside = os.path.abspath(folder) + os.sep
  for split in builder.info.splits.values():
    for path in split.filepaths:
      if not os.path.abspath(path).startswith(inside):
        raise ValueError(
          f"{folder / _INFO} names a file outside its folder: {path}; the data set is not opened"
        )


def _feature(features, kind: type, preferred: str) -> str:
  """Finds the name of the feature of a kind, `preferred` if there are several; "" if there is none."""
  found = [name for name, feature in features.items() if isinstance(feature, kind)]
  return preferred if preferred in found else (found or [""])[0]
