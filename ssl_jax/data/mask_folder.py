"""Reads pairs of an image and a segmentation mask (a class for every pixel) from two folders."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder_layout import EXTENSIONS, counts, files_below, folders, is_image, plain_splits
from ssl_jax.data.reader import Source

IMAGES = ("images", "img", "JPEGImages", "PNGImages")  # folder names; the first that exists is read
MASKS = ("masks", "mask", "SegmentationClass", "PedMasks")
SUFFIXES = ("", "_mask")  # what follows the name of the image in that of its mask, without extension
CLASSES = "classes.txt"  # one class name per line, in the order of the mask values


@dataclasses.dataclass(frozen=True, eq=False)
class MaskFolderReader:
  """Reads encoded files. Decoding is left to the pipeline."""

  root: str
  pairs: tuple[tuple[str, str], ...]  # (image, mask), relative to root

  def __len__(self) -> int:
    return len(self.pairs)

  def read(self, indices: Sequence[int]) -> list[Record]:
    found = []
    for i in indices:
      image, mask = (pathlib.Path(self.root, part).read_bytes() for part in self.pairs[i])
      found.append({"image": image, "mask": mask, "label": -1})
    return found

  def name(self, index: int) -> str:
    return os.path.join(self.root, self.pairs[index][0])


def open_mask_folder(data_dir: str, split: str) -> Source:
  """Opens the pairs of image and mask under `data_dir`, in the order of the image paths.

  `data_dir` holds a folder of images (a name in IMAGES) and a folder of masks (a name in MASKS), which form
  the split "train". Alternatively it holds split folders, such as train and test, with such a pair in each,
  or both folders hold the same split folders. Folder names may be in upper or lower case; which names are
  those of splits, and what counts as an image, is written in `folder.open_folder`. Files in deeper folders
  are not read. A mask is a PNG with one channel or a palette; its name is that of its image, optionally
  followed by "_mask". The file classes.txt, if present, names the classes. A part of a split, such as
  "train[:80%]", is cut from a fixed shuffled order: neighbouring paths are often of one scene.

  Raises: ValueError if the folder or the split does not exist, if there is no image, or if an image has no
    mask, naming it.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(f"data_dir={data_dir!r} is not a folder; give the one that holds the images and masks")
  found = _pair_folders(root)
  splits.check_names(split, list(found), f"the folder {data_dir}")
  pairs = {name: _pairs(*found[name], root) for name in splits.names(split)}
  parts = splits.choose(split, {name: np.full(len(of_split), -1) for name, of_split in pairs.items()})
  chosen = tuple(pairs[name][i] for name, places in parts for i in places)
  left_out = sum((_left_out(found[name][0], root) for name in pairs), collections.Counter())
  classes = root / CLASSES
  names = tuple(classes.read_text(encoding="utf-8").split("\n")) if classes.is_file() else ()
  names = tuple(name.strip() for name in names if name.strip())
  return Source(
    MaskFolderReader(str(root), chosen),
    len(names),
    names,
    None,
    fields=("image", "mask", "label"),
    order=splits.SHUFFLED,
    left_out=counts(left_out),
  )


def _pair_folders(root: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
  """Finds (folder of images, folder of masks) of every split."""
  whole = _pair(root)
  if whole is None:
    found = {name: _pair(folder) for name, folder in plain_splits(root).items()}
    if not any(found.values()):
      raise ValueError(
        f"{root} holds no pair of folders with images and masks; it needs one of {', '.join(IMAGES)} and "
        f"one of {', '.join(MASKS)}, or such a pair in each of the folders train, val or test"
      )
    return {name: pair for name, pair in found.items() if pair}
  images, masks = map(plain_splits, whole)
  return {name: (images[name], masks[name]) for name in images if name in masks} or {"train": whole}


def _pair(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
  there = {name.casefold(): folder / name for name in reversed(folders(folder))}
  images, masks = (
    [there[name.casefold()] for name in known if name.casefold() in there] for known in (IMAGES, MASKS)
  )
  return (images[0], masks[0]) if images and masks else None


def _left_out(images: pathlib.Path, root: pathlib.Path) -> collections.Counter:
  deeper = {f"folder ({name})": 1 for name in folders(images)}
  return files_below(images, root, deep=False).others + collections.Counter(deeper)


def _pairs(images: pathlib.Path, masks: pathlib.Path, root: pathlib.Path) -> list[tuple[str, str]]:
  stems = {path.stem: path for path in sorted(masks.iterdir()) if is_image(path.name)}
  found = []
  for image in sorted(path for path in images.iterdir() if is_image(path.name)):
    mask = next((stems[image.stem + end] for end in SUFFIXES if image.stem + end in stems), None)
    if mask is None:
      raise ValueError(f"{image} has no mask {image.stem}.png in {masks}; add it or remove the image")
    found.append((os.path.relpath(image, root), os.path.relpath(mask, root)))
  if not found:
    raise ValueError(f"{images} holds no image; known file name extensions: {', '.join(EXTENSIONS)}")
  return found
