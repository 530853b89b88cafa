"""Reads COCO's images with semantic masks: one PNG for each image, such as those of COCO-Stuff."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re

from ssl_jax.data.coco import FOLDERS, find_splits, image_folder
from ssl_jax.data.mask_folder import Pair, open_pairs
from ssl_jax.data.mask_layouts import images_in, pairs_by_stem
from ssl_jax.data.mask_values import IGNORED_NAMES, UNKNOWN, MaskClasses, named_values
from ssl_jax.data.reader import Source

MASKS = ("stuffthingmaps/{split}", "annotations/stuffthingmaps/{split}", "annotations/semantic_{split}")
MASKS += ("annotations/{split}_semantic", "{split}_semantic", "annotations/{split}")  # in this order
CLASSES = ("labels.txt", "semantic_classes.json", "categories.json")  # in data_dir or its annotations
_LINE = re.compile(r"\s*(\d+)\s*:\s*(.*\S)\s*")


def open_coco_masks(data_dir: str, split: str) -> Source:
  """Opens a split of COCO, such as "train2017", with semantic masks, in the order of the image names.

  The images are in a folder of coco.FOLDERS, such as train2017 or images/train2017, and the masks, PNGs of
  the same names, in one of MASKS, such as stuffthingmaps/train2017. Of a folder "images" that all splits
  share, those with a mask of the split are read. The value 255 means no class. The classes come from the
  first file that exists of CLASSES:

  - labels.txt holds lines "id: name". If it begins with "0: unlabeled", as COCO-Stuff's, the masks store
    id - 1 and 255 for unlabelled pixels, as COCO-Stuff's do; otherwise they store the id.
  - A JSON file holds {"id": "name"}, or categories [{"id": 1, "name": "person"}], alone or as "categories" of
    an object. The masks store the id.

  Classes are numbered in the order of their ids, without those whose name means no class (IGNORED_NAMES of
  mask_values.py). Without such a file all values are passed on.

  Raises: ValueError if there are no masks, if the file of the classes is not of these forms, or as
    `open_pairs`.
  """
  root = pathlib.Path(data_dir)
  known = find_splits(root, MASKS, _holds_masks)
  if not known:
    raise ValueError(
      f"data_dir={data_dir!r} holds no folder of masks; the known names are {', '.join(MASKS)}"
    )
  find = {name: functools.partial(_pairs, root, name, masks) for name, masks in known.items()}
  files = (folder / name for name in CLASSES for folder in (root, root / "annotations"))
  file = next((file for file in files if file.is_file()), None)
  return open_pairs(root, split, find, _classes(file) if file else UNKNOWN)


def _holds_masks(folder: pathlib.Path) -> bool:
  return folder.is_dir() and any(name.endswith(".png") for name in os.listdir(folder))


def _pairs(root: pathlib.Path, split: str, masks: pathlib.Path) -> list[Pair]:
  stems = {path.stem for path in images_in(masks)}

  def with_masks(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in images_in(folder) if path.stem in stems] if folder.is_dir() else []

  folder = image_folder(root, split, f"{min(stems)}.jpg", lambda folder: bool(with_masks(folder)))
  shared = folder == root / FOLDERS[-1]
  return pairs_by_stem(root, with_masks(folder) if shared else images_in(folder), [masks])


def _classes(file: pathlib.Path) -> MaskClasses:
  try:
    text = file.read_text(encoding="utf-8")
    return _from_lines(text) if file.suffix == ".txt" else _from_json(json.loads(text))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{file} does not list classes as expected: {type(error).__name__}: {error}") from error


def _from_lines(text: str) -> MaskClasses:
  names = {}
  for line in text.split("\n"):
    if line.strip():
      match = _LINE.fullmatch(line)
      if match is None:
        raise ValueError(f"the line {line!r} is not of the form 'id: name'")
      names[int(match[1])] = match[2]
  if names.get(0, "").casefold() in IGNORED_NAMES:
    names = {number - 1: name for number, name in names.items() if number}
  return named_values(names)


def _from_json(stored) -> MaskClasses:
  if isinstance(stored, dict) and "categories" in stored:
    stored = stored["categories"]
  pairs = stored.items() if isinstance(stored, dict) else ((entry["id"], entry["name"]) for entry in stored)
  return named_values({int(number): str(name) for number, name in pairs})
