"""Reads pairs of an image and a segmentation mask (a class for every pixel) from two folders."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder import EXTENSIONS, SPLIT_FOLDERS
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
  the split "train". Alternatively it holds split folders (train and val, valid, validation or test) with such
  a pair in each, or both folders hold the same split folders. A mask is a PNG with one channel or a palette;
  its name is that of its image, optionally followed by "_mask". The file classes.txt, if present, names the
  classes.

  Raises: ValueError if the folder or the split does not exist, if there is no image, or if an image has no
    mask, naming it.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(f"data_dir={data_dir!r} is not a folder; give the one that holds the images and masks")
  found = _pair_folders(root)
  splits.check_names(split, list(found), f"the folder {data_dir}")
  pairs = {name: _pairs(*found[name], root) for name in splits.names(split)}
  places = splits.resolve(split, {name: len(of_split) for name, of_split in pairs.items()})
  chosen = tuple(pairs[name][i] for name, range_ in places for i in range_)
  classes = root / CLASSES
  names = tuple(classes.read_text(encoding="utf-8").split("\n")) if classes.is_file() else ()
  names = tuple(name.strip() for name in names if name.strip())
  return Source(
    MaskFolderReader(str(root), chosen), len(names), names, None, fields=("image", "mask", "label")
  )


def _pair_folders(root: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
  """Finds (folder of images, folder of masks) of every split."""
  whole = _pair(root)
  if whole is None:
    found = {name: _pair(root / name) for name in SPLIT_FOLDERS if (root / name).is_dir()}
    if not found or None in found.values():
      raise ValueError(
        f"{root} holds no pair of folders with images and masks; it needs one of {', '.join(IMAGES)} and "
        f"one of {', '.join(MASKS)}, or such a pair in each of the folders train, val or test"
      )
    return {name: pair for name, pair in found.items() if pair}
  inside = [name for name in SPLIT_FOLDERS if (whole[0] / name).is_dir() and (whole[1] / name).is_dir()]
  return {name: (whole[0] / name, whole[1] / name) for name in inside} or {"train": whole}


def _pair(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
  images, masks = ([folder / name for name in known if (folder / name).is_dir()] for known in (IMAGES, MASKS))
  return (images[0], masks[0]) if images and masks else None


def _pairs(images: pathlib.Path, masks: pathlib.Path, root: pathlib.Path) -> list[tuple[str, str]]:
  stems = {path.stem: path for path in sorted(masks.iterdir()) if _is_image(path)}
  found = []
  for image in sorted(path for path in images.iterdir() if _is_image(path)):
    mask = next((stems[image.stem + end] for end in SUFFIXES if image.stem + end in stems), None)
    if mask is None:
      raise ValueError(f"{image} has no mask {image.stem}.png in {masks}; add it or remove the image")
    found.append((os.path.relpath(image, root), os.path.relpath(mask, root)))
  if not found:
    raise ValueError(f"{images} holds no image; known file name extensions: {', '.join(EXTENSIONS)}")
  return found


def _is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
