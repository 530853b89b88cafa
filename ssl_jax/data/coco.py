"""Reads images with bounding boxes from annotation files in the JSON format of COCO."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Source

FILES = ("annotations/instances_{split}.json", "annotations/{split}.json", "{split}_instances.json")
FILES += ("{split}_detection.json", "{split}.json")  # searched in this order; the first that exists is read
FOLDERS = ("{split}", "images/{split}", "{split}_images", "images")  # where the images may be, in this order


@dataclasses.dataclass(frozen=True, eq=False)
class CocoReader:
  """Reads encoded image files and their boxes. Decoding is left to the pipeline."""

  paths: tuple[str, ...]
  boxes: tuple[np.ndarray, ...]  # by image: f32[n, 4], (x1, y1, x2, y2) in pixels
  classes: tuple[np.ndarray, ...]  # by image: i32[n]
  crowds: tuple[np.ndarray, ...]  # by image: bool[n], whether a box encloses a crowd of objects

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [
      {
        "image": pathlib.Path(self.paths[i]).read_bytes(),
        "label": -1,
        "boxes": self.boxes[i],
        "boxes_class": self.classes[i],
        "boxes_crowd": self.crowds[i],
      }
      for i in indices
    ]

  def name(self, index: int) -> str:
    return self.paths[index]


def open_coco(data_dir: str, split: str) -> Source:
  """Opens all images of a COCO annotation file, in the order of the file. Images without boxes are included.

  For a split such as "train2017", `data_dir` holds the annotations in annotations/instances_train2017.json,
  annotations/train2017.json, train2017_instances.json, train2017_detection.json or train2017.json, and the
  images in train2017, images/train2017, train2017_images or images. Classes are numbered from 0 in the order
  of the category ids. A part of a split, such as "train2017[:80%]", is cut from a fixed shuffled order.

  Raises: ValueError if the folder, the split or the first image of the split does not exist, or if the JSON
    is not in COCO's format. The message names what is wrong.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(
      f"data_dir={data_dir!r} is not a folder; give the one that holds the annotations and images"
    )
  known = find_splits(root, FILES, pathlib.Path.is_file)
  if not known:
    raise ValueError(f"{root} holds no annotation file of COCO; the known names are {', '.join(FILES)}")
  splits.check_names(split, list(known), f"the folder {data_dir}")
  parts = {name: _read(root, name, known[name]) for name in splits.names(split)}
  categories = [categories for _, categories in parts.values()]
  if any(of_split != categories[0] for of_split in categories):
    raise ValueError(f"split={split!r} joins files of {data_dir} whose categories differ; use one of them")
  chosen = splits.choose(split, {name: np.full(len(rows), -1) for name, (rows, _) in parts.items()})
  rows = [parts[name][0][i] for name, places in chosen for i in places]
  reader = CocoReader(*(tuple(column) for column in zip(*rows, strict=True)))
  names = tuple(categories[0])
  fields = ("image", "label", "boxes", "boxes_class", "boxes_crowd")
  most = {"boxes": max(map(len, reader.boxes), default=0)}
  return Source(reader, len(names), names, None, fields=fields, most_rows=most, order=splits.SHUFFLED)


def find_splits(
  root: pathlib.Path, forms: Sequence[str], accepted: Callable[[pathlib.Path], bool]
) -> dict[str, pathlib.Path]:
  """Finds the file or folder of every split: {split: path}, of those that are `accepted`.

  Args:
    forms: paths below `root` that contain "{split}"; of a split, the first that exists counts.
  """
  found = {}
  for form in forms:
    before, after = form.split("{split}")
    for path in sorted(root.glob(form.format(split="*"))):
      if path not in found.values() and accepted(path):
        found.setdefault(path.relative_to(root).as_posix().removeprefix(before).removesuffix(after), path)
  return found


def _read(root: pathlib.Path, split: str, path: pathlib.Path) -> tuple[list[tuple], list[str]]:
  """Returns ([(path of an image, its boxes, classes, crowds)], names of the categories)."""
  try:
    stored = json.loads(path.read_text(encoding="utf-8"))
    categories = sorted(stored["categories"], key=lambda category: category["id"])
    number = {category["id"]: i for i, category in enumerate(categories)}
    of_image: dict[Any, list[Mapping]] = {image["id"]: [] for image in stored["images"]}
    for annotation in stored["annotations"]:
      of_image[annotation["image_id"]].append(annotation)
    first = stored["images"][0]["file_name"] if stored["images"] else ""
    folder = image_folder(root, split, first, lambda folder: (folder / first).is_file())
    rows = [
      (os.path.join(folder, image["file_name"]), *_boxes(of_image[image["id"]], number))
      for image in stored["images"]
    ]
  except (KeyError, TypeError, json.JSONDecodeError) as error:
    raise ValueError(f"{path} is not in COCO's format: {type(error).__name__}: {error}") from error
  return rows, [category["name"] for category in categories]


def image_folder(
  root: pathlib.Path, split: str, first: str, holds: Callable[[pathlib.Path], bool]
) -> pathlib.Path:
  """Finds the folder of the images of a split: the first of FOLDERS that `holds` them.

  Args:
    first: an image, for the message.
  Raises: ValueError if there is none.
  """
  folders = [root / form.format(split=split) for form in FOLDERS]
  for folder in folders:
    if holds(folder):
      return folder
  raise ValueError(
    f"the image {first} of split {split!r} is in none of the folders {', '.join(map(str, folders))}; "
    "put it into one of them"
  )


def _boxes(annotations: list[Mapping], number: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (corners x1, y1, x2, y2; classes; crowds). COCO stores a box as x, y, width, height."""
  stored = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
  corners = np.concatenate([stored[:, :2], stored[:, :2] + stored[:, 2:]], axis=1)
  classes = np.array([number[a["category_id"]] for a in annotations], np.int32)
  return corners, classes, np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
