"""Reads a folder of images, with or without a folder for each class and for each split.

`find_records` finds clips by the same rules.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder_layout import (
  IMAGES,
  Kind,
  class_folders,
  counts,
  files_below,
  find_splits,
  folders,
  listed_classes,
)
from ssl_jax.data.reader import Reader, Source


def encoded_image(path: str) -> Record:
  """The record of an image, without its label. Decoding is left to the pipeline."""
  return {"image": pathlib.Path(path).read_bytes()}


@dataclasses.dataclass(frozen=True, eq=False)
class FolderReader:
  """Reads one record for each file, with its label."""

  root: str
  paths: tuple[str, ...]  # relative to root
  labels: np.ndarray  # i32[N]; -1: no label
  load: Callable[[str], Record] = encoded_image  # of a file; a function of a module, for worker processes

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{**self.load(self.name(i)), "label": int(self.labels[i])} for i in indices]

  def name(self, index: int) -> str:
    return os.path.join(self.root, self.paths[index])


class _Split(NamedTuple):
  """One split of a folder."""

  folder: pathlib.Path
  classes: tuple[str, ...]  # folders with an image, one for each class; (): the images have no class folders
  flat: pathlib.Path  # the folder that holds images without class folders
  listed: dict[str, str]  # file name -> class, from an annotation file; {} if there is none

  def class_names(self) -> set[str]:
    return {*self.classes, *self.listed.values()}


def open_folder(data_dir: str, split: str) -> Source:
  """Opens the images under `data_dir`, in the order of their paths.

  Images: the files named *.png, *.jpg, *.jpeg and *.webp, in upper or lower case. Hidden files and folders
  are never read at any depth, nor is a folder called __* or @eaDir. Links to files and folders are followed
  at every depth, except into a folder that is being read already. `Source.left_out` counts by suffix the
  files that are not read.

  Splits: `data_dir` may hold one folder for each split and no other folder with images. Folders are splits if
  they are called train (training), test (testing), val, valid, validation, eval, evaluation, dev, holdout,
  pred, extra or unlabeled, in upper or lower case, and with the same addition for all, such as seg_train and
  seg_test, or train2017 and val2017. Otherwise the whole folder is the split "train". A class may be called
  train if its folder lies beside other classes and has no folders inside.

  Classes: within a split each folder with an image at any depth is a class. Without class folders all images
  have the label -1. Classes are numbered over all splits together, so that a label means the same class in
  each of them. If the only folder of a split is called images, it is no class: its images have the label -1,
  or the class that a file *_annotations.txt beside it states, as in Tiny ImageNet (file name, tab, class).

  Parts: a part of a split, such as "train[:80%]" or "train[100:200]", is cut class by class: it holds each
  class in proportion, in the order of the paths. Without classes it is cut from a fixed shuffled order.

  Raises: ValueError if the folder or the split does not exist, if there is no image, if some images lie in
    class folders and others do not, if folders look like splits but others lie beside them, or if a class has
    no image in a known format.
  """
  found = find_records(data_dir, split, IMAGES)
  return found.source(FolderReader(data_dir, found.paths, found.labels))


class Found(NamedTuple):
  """The records of a split."""

  paths: tuple[str, ...]  # relative to the folder of the data set
  labels: np.ndarray  # i32[N]; -1: no label
  class_names: tuple[str, ...]  # (): no labels
  left_out: collections.Counter  # what is not read: suffix -> number of files

  def source(self, reader: Reader, **fields: Any) -> Source:
    """Makes the source of a reader of these records; `fields` are those of `Source` that differ."""
    return Source(
      reader,
      len(self.class_names),
      self.class_names,
      None,
      order=splits.BY_CLASS if self.class_names else splits.SHUFFLED,
      sorted_by_class=bool(self.class_names),
      left_out=counts(self.left_out),
      **fields,
    )


def find_records(data_dir: str, split: str, kind: Kind) -> Found:
  """Finds the images or clips of a split by the rules that `open_folder` states for images.

  Raises: ValueError as `open_folder`.
  """
  root = pathlib.Path(data_dir)
  found = {name: _look(folder, kind) for name, folder in find_splits(root, kind).items()}
  splits.check_names(split, list(found), f"the folder {data_dir}")
  class_names = _class_names(found)
  wanted = list(dict.fromkeys(splits.names(split)))
  files = {name: _files(found[name], class_names, root, kind) for name in wanted}
  parts = splits.choose(split, {name: of_split.labels for name, of_split in files.items()})
  labels = np.concatenate([files[name].labels[places] for name, places in parts])
  paths = tuple(files[name].paths[i] for name, places in parts for i in places)
  left_out = sum((files[name].left_out for name in wanted), collections.Counter())
  if all(of_split.folder != root for of_split in found.values()):
    beside = files_below(root, root, deep=False, kind=kind).paths
    left_out[f"{kind.noun} beside the folders of the splits"] += len(
      [path for path in beside if (root / path) not in {of_split.folder for of_split in found.values()}]
    )
  return Found(paths, labels, tuple(class_names) if (labels >= 0).any() else (), left_out)


class _Files(NamedTuple):
  """The records of one split, and what is not read."""

  paths: list[str]  # relative to the folder of the data set
  labels: np.ndarray  # i32[N]
  left_out: collections.Counter  # what is not read: suffix -> number of files


def _look(folder: pathlib.Path, kind: Kind) -> _Split:
  classes = class_folders(folder, kind)
  if len(classes) != 1 or classes[0].casefold() not in kind.plain:
    return _Split(folder, tuple(classes), folder, {})
  inside = folder / classes[0]
  if deeper := class_folders(inside, kind):
    raise ValueError(
      f"{folder} holds only the folder {classes[0]}, which holds the folders {', '.join(deeper[:5])}; if "
      f"these are the classes or splits, give {inside} as data_dir, or move them up by one folder"
    )
  return _Split(folder, (), inside, listed_classes(folder, inside, kind))


def _class_names(found: dict[str, _Split]) -> list[str]:
  """Returns the names of the classes of all splits, sorted.

  Raises: ValueError if a class is spelt in upper case in one split and in lower case in another.
  """
  names = sorted(set().union(*(split.class_names() for split in found.values())))
  spelt: dict[str, str] = {}
  for name in names:
    other = spelt.setdefault(name.casefold(), name)
    if other != name and not any({name, other} <= split.class_names() for split in found.values()):
      raise ValueError(
        f"the class {other!r} of one split is called {name!r} in another one; give the folders the same name"
      )
  return names


def _files(split: _Split, class_names: Sequence[str], base: pathlib.Path, kind: Kind) -> _Files:
  """Lists every record of one split."""
  label = {name: i for i, name in enumerate(class_names)}
  outside = files_below(split.flat, base, deep=False, kind=kind)
  inside = [(label[name], files_below(split.folder / name, base, kind=kind)) for name in split.classes]
  if outside.paths and split.classes:
    raise ValueError(
      f"{split.folder} holds {len(outside.paths)} {kind.noun}s outside of class folders, such as "
      f"{outside.paths[0]}, and {sum(len(files.paths) for _, files in inside)} inside; put either all "
      f"{kind.noun}s or none into class folders"
    )
  left_out = sum((files.others for _, files in inside), outside.others)
  read = {*split.classes, *map(os.path.basename, outside.paths)}
  empty = [name for name in folders(split.flat) if name not in read]
  left_out.update(f"folder without {kind.noun}s ({name})" for name in empty)
  if not outside.paths and not inside:
    there = f", but {counts(left_out)}" if left_out else ""
    raise ValueError(f"{split.folder} holds no {kind.noun}{there}; {kind.known()}")
  paths = [*outside.paths, *(path for _, files in inside for path in files.paths)]
  labels = [label[split.listed[os.path.basename(path)]] if split.listed else -1 for path in outside.paths]
  labels += [number for number, files in inside for _ in files.paths]
  return _Files(paths, np.array(labels, np.int32), left_out)
