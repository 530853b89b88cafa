"""Finds the clips of a folder: video files and folders of numbered images, with or without class folders."""

from __future__ import annotations

import collections
import os
import pathlib
from typing import NamedTuple

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder import FolderReader, Found, find_records
from ssl_jax.data.folder_layout import Kind
from ssl_jax.data.reader import Source
from ssl_jax.video.frame_folder import is_frame_folder
from ssl_jax.video.index import check_installed

SUFFIXES = tuple(
  ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .mpe .m2ts .mts .ts .wmv .asf .flv .ogv .3gp .mjpeg".split()
)
CLIPS = Kind(
  "clip",
  SUFFIXES,
  frozenset(".gif .rm .rmvb .swf .vob .divx .f4v .h264 .h265 .hevc .y4m .yuv".split()),
  "MP4, MKV, AVI or WebM",
  ("videos", "clips"),
  is_frame_folder,
)
_NO_LISTS = ("readme", "license", "licence", "classes", "classind", "fps", "times")  # names of text files


def clip_path(path: str) -> Record:
  """The record of a clip, without its label. The host transform opens it: see clip_transforms.py."""
  return {"clip": path}


def open_video_folder(data_dir: str, split: str) -> Source:
  """Opens the clips under `data_dir`. A record has "clip", the path of a clip, and "label".

  Clips: the files with a suffix in SUFFIXES, in upper or lower case, and the folders that hold numbered
  images, such as 00001.jpg or frame_12.png, no other images and no folders (see
  `frame_folder.FrameFolder`). Splits, classes and parts of splits are found as `folder.open_folder` finds
  those of images. If the only folder of a split is called videos or clips, it is no class.

  Lists: a text file in `data_dir` that is called as the split, such as train.txt or trainlist01.txt for
  split="trainlist01", takes precedence over folders. A line holds the path of a clip, relative to `data_dir`,
  and optionally a space or tab and its class, a name or a number. Without classes in the list, the class of a
  clip is the first folder of its path, if it has one. Classes are numbered over all lists in `data_dir`
  together, numbers in ascending order and names by the alphabet. A clip that is listed but does not exist is
  a bad record when it is read.

  Raises: ValueError as `open_folder`, or if a list has no line, or classes in some of its lines only;
    ImportError if there are video files and PyAV is not installed.
  """
  root = pathlib.Path(data_dir)
  lists = _lists(root) if root.is_dir() else {}
  named = [name for name in splits.names(split) if name in lists]
  if named and len(named) < len(splits.names(split)):
    splits.check_names(split, list(lists), f"the lists in the folder {data_dir}")
  found = _listed(root, split, lists) if named else find_records(data_dir, split, CLIPS)
  found.left_out[".wav"] -= _sounds(root, found)
  if any(path.lower().endswith(SUFFIXES) for path in found.paths):
    check_installed()
  return found.source(
    FolderReader(data_dir, found.paths, found.labels, clip_path), fields=("clip", "label"), records="clips"
  )


class _Line(NamedTuple):
  """One line of a list."""

  path: str
  label: str  # "": none


def _lists(root: pathlib.Path) -> dict[str, pathlib.Path]:
  return {path.stem: path for path in sorted(root.glob("*.txt")) if path.stem.casefold() not in _NO_LISTS}


def _listed(root: pathlib.Path, split: str, lists: dict[str, pathlib.Path]) -> Found:
  """Finds the clips of lists."""
  lines = {name: _read_list(path) for name, path in lists.items()}
  wanted = {name: lines[name] for name in splits.names(split)}
  for name, of_split in wanted.items():
    if not of_split:
      raise ValueError(f"{lists[name]} lists no clip; write the path of a clip and its class in each line")
  names = _sorted_names({line.label for of_list in lines.values() for line in of_list if line.label})
  number = {name: i for i, name in enumerate(names)}
  labels = {
    name: np.array([number.get(line.label, -1) for line in of_split], np.int32)
    for name, of_split in wanted.items()
  }
  parts = splits.choose(split, labels)
  chosen = np.concatenate([labels[name][places] for name, places in parts])
  paths = tuple(wanted[name][i].path for name, places in parts for i in places)
  return Found(paths, chosen, tuple(names) if (chosen >= 0).any() else (), collections.Counter())


def _read_list(path: pathlib.Path) -> list[_Line]:
  """Reads a list. Raises ValueError if some lines have a class and others do not."""
  try:
    texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is not a text in UTF-8; convert it") from error
  lines = [_parse(text) for text in texts if text]
  bare = [line.path for line in lines if not line.label]
  if bare and len(bare) < len(lines):
    raise ValueError(
      f"{path} gives no class for {bare[0]}, but it does for others; give one for all clips or for none"
    )
  if bare:
    folders = [os.path.dirname(line.path).split(os.sep)[0] for line in lines]
    return [line._replace(label=folder) for line, folder in zip(lines, folders)]
  return lines


def _parse(text: str) -> _Line:
  if "\t" in text:
    path, _, label = text.partition("\t")
    return _Line(path.strip(), label.strip())
  if text.lower().endswith(SUFFIXES) or " " not in text:
    return _Line(text, "")
  path, _, label = text.rpartition(" ")
  return _Line(path.strip(), label)


def _sorted_names(names: set[str]) -> list[str]:
  return sorted(names, key=int if all(name.isdecimal() for name in names) else str)


def _sounds(root: pathlib.Path, found: Found) -> int:
  """The number of .wav files that are the sound of a clip beside them."""
  return sum((root / path).with_suffix(".wav").is_file() for path in found.paths)
