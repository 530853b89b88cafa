"""Reads a folder of images, with or without a folder for each class and for each split."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Source

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class FolderReader:
  """Reads encoded files. Decoding is left to the pipeline."""

  root: str
  paths: tuple[str, ...]  # relative to root
  labels: np.ndarray  # i32[N]; -1: no label

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{"image": pathlib.Path(self.name(i)).read_bytes(), "label": int(self.labels[i])} for i in indices]

  def name(self, index: int) -> str:
    return os.path.join(self.root, self.paths[index])


def open_folder(data_dir: str, split: str) -> Source:
  """Opens the images under `data_dir`, in the order of their paths.

  `data_dir` may hold one folder for each split (train and val, valid, validation or test, and nothing else);
  otherwise the whole folder is the split "train". Within a split each folder is a class, whose images may lie
  in subfolders; without class folders all images have the label -1. Classes are numbered over all splits
  together, so that a label means the same class in each of them.

  Raises: ValueError if the folder or the split does not exist, if there is no image, or if some images lie in
    class folders and others do not.
  """
  root = pathlib.Path(data_dir)
  roots = _split_folders(root)
  splits.check_names(split, list(roots), f"the folder {data_dir}")
  class_names = sorted({name for folder in roots.values() for name in _folders(folder)})
  found = {name: _images(roots[name], class_names, root) for name in splits.names(split)}
  chosen = [
    found[name][i]
    for name, places in splits.resolve(split, {n: len(f) for n, f in found.items()})
    for i in places
  ]
  labels = np.array([label for _, label in chosen], np.int32)
  labelled = bool((labels >= 0).any())
  reader = FolderReader(str(root), tuple(path for path, _ in chosen), labels)
  return Source(reader, len(class_names) if labelled else 0, tuple(class_names) if labelled else (), None)


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
  if not root.is_dir():
    raise ValueError(f"data_dir={str(root)!r} is not a folder; give the one that holds the images")
  inside = _folders(root)
  if inside and all(name in SPLIT_FOLDERS for name in inside):
    return {name: root / name for name in inside}
  return {"train": root}


def _folders(root: pathlib.Path) -> list[str]:
  return sorted(
    entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith((".", "__"))
  )


def _images(root: pathlib.Path, class_names: Sequence[str], base: pathlib.Path) -> list[tuple[str, int]]:
  """Lists (path relative to `base`, label) of every image of one split."""
  label = {name: i for i, name in enumerate(class_names)}
  outside = [(os.path.relpath(root / name, base), -1) for name in sorted(os.listdir(root)) if _is_image(name)]
  inside = [(path, label[name]) for name in _folders(root) for path in _below(root / name, base)]
  if outside and inside:
    raise ValueError(
      f"{root} holds {len(outside)} images outside of class folders, such as {outside[0][0]}, and "
      f"{len(inside)} inside; put either all images or none into class folders"
    )
  if not outside and not inside:
    raise ValueError(f"{root} holds no image; known file name extensions: {', '.join(EXTENSIONS)}")
  return outside or inside


def _below(folder: pathlib.Path, base: pathlib.Path) -> list[str]:
  return sorted(
    os.path.relpath(os.path.join(where, name), base)
    for where, _, files in os.walk(folder)
    for name in files
    if _is_image(name)
  )


def _is_image(name: str) -> bool:
  return name.lower().endswith(EXTENSIONS) and not name.startswith(".")
