"""Which images there are: the embedded sample, a folder, TFDS data sets, synthetic ones; any in memory."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data import folder, synthetic
from ssl_jax.data.decode import DecodeError, decode
from ssl_jax.data.reader import Reader, Record, Source, cores

SIZES = {  # images and classes of data sets that need not be at hand for a plan, or for the weights that others trained on them
  "imagenet2012": (1_281_167, 1000),
  "cifar10": (50_000, 10),
  "cifar100": (50_000, 100),
  "sample": (8000, 10),
}
BUILT_IN = ("sample", "folder", "synthetic")
SAMPLE = pathlib.Path(__file__).parent / "sample"  # Fashion-MNIST, MIT licence: see its LICENSE
_CHUNK = 64  # images read in one call


def open_source(name: str, *, split: str = "train", data_dir: str = "", image_size: int = 32) -> Source:
  """Opens a split of a data set. Nothing is decoded yet.

  Args:
    name: "sample" (embedded: 8,000 train and 2,000 test images of Fashion-MNIST, 32x32), "folder" (png, jpeg
      and webp files, see folder.open_folder), "synthetic" (made from their number) or a TFDS data set (see
      records.open_tfds).
    split: TFDS syntax: "train", "test", "train[:90%]", "train[100:200]", "train[:10%]+train[90%:]".
    data_dir: of "folder" the folder itself, of TFDS data sets the one that holds them; the others read none.
    image_size: side of synthetic images.
  Raises: ValueError for a name, split or folder that there is not, with those that there are.
  """
  if name == "synthetic":
    return synthetic.open_synthetic(split, image_size)
  if name != "sample" and not data_dir:
    raise ValueError(
      f"data set {name!r} needs data_dir, and it is empty; set it to the folder of images or "
      f"of TFDS data sets. Without one there are sample and synthetic{_meant(name)}"
    )
  if name == "folder":
    return folder.open_folder(data_dir, split)
  from ssl_jax.data import tfds_records  # here: importing TFDS takes half a second

  if name == "sample":
    return tfds_records.open_tfds("fashion_mnist_sample", str(SAMPLE), split)
  return tfds_records.open_tfds(name, data_dir, split)


def shuffled(source: Source, seed: int = 0) -> Source:
  """The same images in a random order of their own: for streams whose images would come class by class."""
  order = np.random.default_rng(seed).permutation(len(source))
  return dataclasses.replace(source, reader=Reordered(source.reader, order))


@dataclasses.dataclass(frozen=True, eq=False)
class Reordered:
  """A Reader that shows another's records in an order of its own."""

  origin: Reader
  order: np.ndarray  # i64[N]

  def __len__(self) -> int:
    return len(self.order)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return self.origin.read([int(self.order[i]) for i in indices])

  def name(self, index: int) -> str:
    return self.origin.name(int(self.order[index]))


def _meant(name: str) -> str:
  hint = nearest(name, BUILT_IN)
  return hint.partition("?")[0] + "?" if "?" in hint else ""


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryReader:
  """Decoded images that lie in memory."""

  images: np.ndarray  # uint8[N, ...]
  labels: np.ndarray  # i32[N]
  bad: dict[int, str]  # images that could not be decoded, and why
  origin: Reader

  def __len__(self) -> int:
    return len(self.images)

  def read(self, indices: Sequence[int]) -> list[Record]:
    for i in indices:
      if i in self.bad:
        raise DecodeError(self.bad[i])
    return [{"image": self.images[i], "label": int(self.labels[i])} for i in indices]

  def name(self, index: int) -> str:
    return self.origin.name(index)


def cached(
  source: Source, *, transform: Callable | None = None, max_bytes: int = 16 * 2**30, threads: int = 0
) -> Source:
  """The same source with every image decoded once, into one array in memory: for small sets.

  An image that cannot be decoded raises DecodeError when it is asked for, as it would uncached.

  Args:
    transform: a transform without randomness that brings all images to one size, see transforms.py; None:
      they have one size already.
    max_bytes: refuse to hold more.
    threads: that decode; 0: one for each core.
  Raises: ValueError if images differ in size or are too many.
  """
  shape = _shape(source) if transform is None else transform.shape
  total = len(source) * math.prod(shape)
  if total > max_bytes:
    raise ValueError(
      f"{len(source)} images of {shape} take {total / 2**30:.1f} GiB of memory, the limit is "
      f"{max_bytes / 2**30:.1f} GiB; set cache=False"
    )
  images, labels = np.zeros((len(source), *shape), np.uint8), np.full(len(source), -1, np.int32)
  held = MemoryReader(images, labels, {}, source.reader)
  fill = functools.partial(_fill, held, source, transform or (lambda _, image: _pixels(image)))
  with ThreadPoolExecutor(threads or cores()) as pool:
    list(pool.map(fill, range(0, len(source), _CHUNK)))
  return dataclasses.replace(source, reader=held, native_shape=tuple(shape) if len(shape) == 3 else None)


def _fill(held: MemoryReader, source: Source, transform: Callable, start: int) -> None:
  """Decodes images `start` and following into `held`."""
  indices = range(start, min(start + _CHUNK, len(source)))
  for i, record in zip(indices, source.read_each(indices)):
    try:
      if isinstance(record, DecodeError):
        raise record
      held.labels[i] = record["label"]
      image = transform(None, record["image"])
    except DecodeError as error:
      held.bad[i] = str(error)
      continue
    if image.shape != held.images.shape[1:]:
      raise ValueError(
        f"{source.name(i)} is {image.shape}, others are {held.images.shape[1:]}; images in "
        "memory must have one size: set cache=False"
      )
    held.images[i] = image


def _shape(source: Source) -> tuple[int, ...]:
  """Of the first image that can be decoded."""
  if source.native_shape is not None:
    return source.native_shape
  for i in range(len(source)):
    try:
      return _pixels(source[i]["image"]).shape
    except (DecodeError, OSError):
      continue
  raise ValueError(f"none of the {len(source)} images can be decoded, {source.name(0)} for one")


def _pixels(image: bytes | np.ndarray) -> np.ndarray:
  return image if isinstance(image, np.ndarray) else decode(image)
