"""Reads pairs of an image and a segmentation mask (a class for every pixel) from two folders."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Record
from ssl_jax.data.folder_layout import IMAGES as IMAGE_FILES
from ssl_jax.data.folder_layout import counts, files_below, folders, is_image, plain_splits
from ssl_jax.data.mask_values import FIELD, UNKNOWN, MaskClasses, read_class_file
from ssl_jax.data.reader import Source

IMAGES = ("images", "img", "JPEGImages", "PNGImages")  # folder names; the first that exists is read
MASKS = ("masks", "mask", "SegmentationClass", "PedMasks")
SUFFIXES = ("", "_mask")  # what follows the name of the image in that of its mask, without extension
CLASSES = ("classes.txt", "label_colors.txt")  # file names; the first that exists is read


Pair = tuple[str, str]  # paths of an image and of its mask, which need not exist


@dataclasses.dataclass(frozen=True, eq=False)
class MaskFolderReader:
  """Reads encoded files. Decoding is left to the pipeline; a missing mask is a DecodeError of its record."""

  root: str
  pairs: tuple[Pair, ...]  # relative to root
  values: np.ndarray | None = None  # "mask_values" of the records, see mask_values.py

  def __len__(self) -> int:
    return len(self.pairs)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [self._record(*self.pairs[i]) for i in indices]

  def _record(self, image: str, mask: str) -> Record:
    record: dict[str, Any] = {"image": pathlib.Path(self.root, image).read_bytes()}
    try:
      record["mask"] = pathlib.Path(self.root, mask).read_bytes()
    except FileNotFoundError as error:
      raise DecodeError(f"it has no mask {mask}; add it or leave the image out") from error
    record["label"] = -1
    return record if self.values is None else {**record, FIELD: self.values}

  def name(self, index: int) -> str:
    return os.path.join(self.root, self.pairs[index][0])


def open_mask_folder(data_dir: str, split: str) -> Source:
  """Opens the pairs of image and mask under `data_dir`, in the order of the image paths.

  `data_dir` holds a folder of images (a name in IMAGES) and a folder of masks (a name in MASKS), which form
  the split "train". Alternatively it holds split folders, such as train and test, with such a pair in each,
  or both folders hold the same split folders. Folder names may be in upper or lower case; which names are
  those of splits, and what counts as an image, is written in `folder.open_folder`. Files in deeper folders
  are not read. The name of a mask is that of its image, optionally followed by "_mask". A part of a split,
  such as "train[:80%]", is cut from a fixed shuffled order: neighbouring paths are often of one scene.

  A mask is a PNG with one channel or a palette, whose values or palette indices are the classes; 255 means no
  class. A file with a name in CLASSES names the classes in the order of the values, as `read_class_file` in
  mask_values.py reads it: then the value of a name such as "void" means no class either, and other values are
  not defined. If the file gives a colour for each class, the masks are colour images. Without such a file all
  values are passed on.

  Raises: ValueError if the folder or the split does not exist, if there is no image, if no image at all has a
    mask, or if the file of the classes is wrong. A single image without a mask is a DecodeError when it is
    read.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(f"data_dir={data_dir!r} is not a folder; give the one that holds the images and masks")
  found = _pair_folders(root)
  class_file = next((root / name for name in CLASSES if (root / name).is_file()), None)
  left_out = (_left_out(found[name][0], root) for name in set(splits.names(split)) & found.keys())
  return open_pairs(
    root,
    split,
    {name: functools.partial(_pairs, *pair, root) for name, pair in found.items()},
    read_class_file(class_file) if class_file else UNKNOWN,
    left_out=counts(sum(left_out, collections.Counter())),
  )


def open_pairs(
  root: pathlib.Path,
  split: str,
  find: Mapping[str, Callable[[], Sequence[Pair]]],
  classes: MaskClasses,
  *,
  left_out: str = "",
) -> Source:
  """Makes the source of pairs of image and mask.

  Args:
    find: for each split, a function that lists its pairs, relative to `root`.
    classes: of the masks.
  Raises: ValueError if the split does not exist, or if it has no image, or no image of it has a mask.
  """
  splits.check_names(split, list(find), f"the folder {root}")
  pairs = {name: find[name]() for name in splits.names(split)}
  for name, of_split in pairs.items():
    check_present(root, name, of_split)
  parts = splits.choose(split, {name: np.full(len(of_split), -1) for name, of_split in pairs.items()})
  chosen = tuple(pairs[name][i] for name, places in parts for i in places)
  return Source(
    MaskFolderReader(str(root), chosen, classes.values),
    len(classes.names),
    classes.names,
    None,
    fields=("image", "mask", "label"),
    order=splits.SHUFFLED,
    left_out=left_out,
  )


def check_present(root: pathlib.Path, split: str, pairs: Sequence[Pair]) -> None:
  """Raises ValueError if there is no pair, or if all images or all masks are missing."""
  if not pairs:
    raise ValueError(f"the split {split!r} of {root} has no image; {IMAGE_FILES.known()}")
  for place, what in enumerate(("image", "mask")):
    if not any((root / pair[place]).is_file() for pair in pairs):
      raise ValueError(
        f"not one {what} of the {len(pairs)} pairs of the split {split!r} exists in {root}; the first would "
        f"be {pairs[0][place]}. Add them, or give another data_dir"
      )


def _pair_folders(root: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
  """Finds (folder of images, folder of masks) of every split."""
  whole = pair_of_folders(root)
  if whole is None:
    found = {name: pair_of_folders(folder) for name, folder in plain_splits(root).items()}
    if not any(found.values()):
      raise ValueError(
        f"{root} holds no pair of folders with images and masks; it needs one of {', '.join(IMAGES)} and "
        f"one of {', '.join(MASKS)}, or such a pair in each of the folders train, val or test"
      )
    return {name: pair for name, pair in found.items() if pair}
  images, masks = map(plain_splits, whole)
  return {name: (images[name], masks[name]) for name in images if name in masks} or {"train": whole}


def pair_of_folders(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
  """The folders of images and of masks inside a folder; None if one of them is missing."""
  there = {name.casefold(): folder / name for name in reversed(folders(folder))}
  images, masks = (
    [there[name.casefold()] for name in known if name.casefold() in there] for known in (IMAGES, MASKS)
  )
  return (images[0], masks[0]) if images and masks else None


def _left_out(images: pathlib.Path, root: pathlib.Path) -> collections.Counter:
  deeper = {f"folder ({name})": 1 for name in folders(images)}
  return files_below(images, root, deep=False).others + collections.Counter(deeper)


def _pairs(images: pathlib.Path, masks: pathlib.Path, root: pathlib.Path) -> list[Pair]:
  stems = {path.stem: path for path in sorted(masks.iterdir()) if is_image(path.name)}
  found = []
  for image in sorted(path for path in images.iterdir() if is_image(path.name)):
    mask = next((stems[image.stem + end] for end in SUFFIXES if image.stem + end in stems), None)
    mask = mask or masks / f"{image.stem}.png"
    found.append((os.path.relpath(image, root), os.path.relpath(mask, root)))
  if not found:
    raise ValueError(f"{images} holds no image; {IMAGE_FILES.known()}")
  return found
