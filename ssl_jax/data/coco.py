"""Reads images with boxes, masks and DensePose's points from annotation files in the JSON format of COCO."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import dense_points, instance_masks, splits
from ssl_jax.data.dense_points import DensePoints
from ssl_jax.data.instance_masks import EncodedMask
from ssl_jax.data.objects import Annotated, Empty, Objects, open_annotated, repaired
from ssl_jax.data.reader import Source

FILES = ("annotations/instances_{split}.json", "annotations/{split}.json", "{split}_instances.json")
FILES += (
  "{split}_detection.json",
  "{split}.json",
  "{split}/instances.json",
)  # searched in this order; the first that exists is read
FOLDERS = ("{split}", "images/{split}", "{split}_images", "images")  # where the images may be, in this order
# Where COCO's own images are, of which other data sets annotate a part under another name.
PUBLISHED = ("train2014", "val2014", "train2017", "val2017")


def open_coco(data_dir: str, split: str, *, empty: Empty = "keep") -> Source:
  """Opens all images of a COCO annotation file, in the order of the file.

  For a split such as "train2017", `data_dir` holds the annotations in annotations/instances_train2017.json,
  annotations/train2017.json, train2017_instances.json, train2017_detection.json, train2017.json or
  train2017/instances.json, and the images in train2017, images/train2017, train2017_images or images, or, as
  those that DensePose annotates (split "densepose_coco_2014_train"), in train2014, val2014, train2017 or
  val2017. Classes are numbered from 0 in the order of the category ids. A part of a split, such as
  "train2017[:80%]", is cut from a fixed shuffled order.

  An annotation may have `iscrowd`, `difficult` (or `ignore`, its other name) and `area`. If every annotation
  has a segmentation, polygons or run lengths, the records have "instances". If any annotation has points of
  DensePose, they have "dense_points"; see dense_points.py. Boxes are clipped to their image and dropped if
  no area is left; the source tells how many in `left_out`.

  Args:
    empty: "drop" leaves out images without an object that is not a crowd, as detectors are trained.
  Raises: ValueError if the folder, the split or the first image of the split does not exist, if the JSON is
    not in COCO's format, or if an annotation has a category or an image that the file does not list, or a
    segmentation or points that are none. The message names what is wrong.
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
  first = next(iter(parts.values()))
  if any(part.categories != first.categories for part in parts.values()):
    raise ValueError(f"split={split!r} joins files of {data_dir} whose categories differ; use one of them")
  found = {name: part.images for name, part in parts.items()}
  left_out = [part.left_out for part in parts.values() if part.left_out]
  return open_annotated(found, split, first.categories, empty=empty, left_out=left_out)


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


class _File(NamedTuple):
  images: list[Annotated]
  categories: list[str]  # names, in the order of their ids
  left_out: str  # what is not read of the file


def _read(root: pathlib.Path, split: str, path: pathlib.Path) -> _File:
  try:
    stored = json.loads(path.read_text(encoding="utf-8"))
    categories = sorted(stored["categories"], key=lambda category: category["id"])
    number = {category["id"]: i for i, category in enumerate(categories)}
    of_image = _by_image(stored, number, path)
    first = stored["images"][0]["file_name"] if stored["images"] else ""
    forms = (*FOLDERS, *PUBLISHED)
    folder = image_folder(root, split, first, lambda folder: (folder / first).is_file(), forms)
    dense = any(annotation.get("dp_x") is not None for annotation in stored["annotations"])
    lacking = sum(not annotation.get("segmentation") for annotation in stored["annotations"])
    images = [
      repaired(
        os.path.join(folder, image["file_name"]),
        _objects(image, of_image[image["id"]], number, path, masks=not lacking, dense=dense),
        image.get("width", np.inf),
        image.get("height", np.inf),
      )
      for image in stored["images"]
    ]
  except (KeyError, TypeError, json.JSONDecodeError) as error:
    raise ValueError(f"{path} is not in COCO's format: {type(error).__name__}: {error}") from error
  some = 0 < lacking < len(stored["annotations"])
  left_out = [f"masks, which {lacking} of {len(stored['annotations'])} boxes lack"] if some else []
  outside = sum(len(annotation.get("dp_x") or ()) for annotation in stored["annotations"])
  outside -= sum(len(one.points) for image in images for one in image.objects.dense or () if one)
  left_out += [f"{outside} points outside their boxes"] if outside else []
  return _File(images, [category["name"] for category in categories], ", ".join(left_out))


def _by_image(stored: Mapping, number: Mapping, path: pathlib.Path) -> dict[Any, list[Mapping]]:
  """Returns {image id: its annotations}. Raises ValueError for ids that the file does not list."""
  of_image: dict[Any, list[Mapping]] = {image["id"]: [] for image in stored["images"]}
  for annotation in stored["annotations"]:
    for key, known, list_name in (("image_id", of_image, "images"), ("category_id", number, "categories")):
      if annotation[key] not in known:
        raise ValueError(
          f"{path}: annotation {annotation.get('id', '')} has {key} {annotation[key]!r}, which is not among "
          f"the {len(known)} {list_name} of the file; correct it, or remove the annotation"
        )
    if len(annotation["bbox"]) != 4:
      raise ValueError(
        f"{path}: annotation {annotation.get('id', '')} has a bbox of {len(annotation['bbox'])} numbers; it "
        "needs x, y, width and height"
      )
    of_image[annotation["image_id"]].append(annotation)
  return of_image


def image_folder(
  root: pathlib.Path,
  split: str,
  first: str,
  holds: Callable[[pathlib.Path], bool],
  forms: Sequence[str] = FOLDERS,
) -> pathlib.Path:
  """Finds the folder of the images of a split: the first of `forms` that `holds` them.

  Args:
    first: an image, for the message.
    forms: paths below `root` that may contain "{split}".
  Raises: ValueError if there is none.
  """
  folders = [root / form.format(split=split) for form in forms]
  for folder in folders:
    if holds(folder):
      return folder
  raise ValueError(
    f"the image {first} of split {split!r} is in none of the folders {', '.join(map(str, folders))}; "
    "put it into one of them"
  )


def _objects(
  image: Mapping, annotations: list[Mapping], number: Mapping, path: pathlib.Path, *, masks: bool, dense: bool
) -> Objects:
  """The objects of an image. COCO stores a box as x, y, width, height."""
  stored = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
  flag = lambda *names: np.array([any(a.get(n, 0) for n in names) for a in annotations], bool)
  return Objects(
    boxes=np.concatenate([stored[:, :2], stored[:, :2] + stored[:, 2:]], axis=1),
    classes=np.array([number[a["category_id"]] for a in annotations], np.int32),
    crowd=flag("iscrowd"),
    difficult=flag("difficult", "ignore"),
    area=np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations], np.float64),
    masks=tuple(_mask(a, image, path) for a in annotations) if masks else None,
    dense=tuple(_points(a, path) for a in annotations) if dense else None,
  )


def _points(annotation: Mapping, path: pathlib.Path) -> DensePoints | None:
  try:
    return dense_points.from_coco(annotation)
  except (ValueError, TypeError) as error:
    raise ValueError(f"{path}: annotation {annotation.get('id', '')}: {error}") from error


def _mask(annotation: Mapping, image: Mapping, path: pathlib.Path) -> EncodedMask:
  """Raises ValueError for what is not a mask of the image."""
  size = image["height"], image["width"]
  try:
    mask = instance_masks.from_coco(annotation["segmentation"], *size)
  except ValueError as error:
    raise ValueError(f"{path}: annotation {annotation.get('id', '')}: {error}") from error
  if mask[:2] != size:
    raise ValueError(
      f"{path}: the mask of annotation {annotation.get('id', '')} has {mask.height}x{mask.width} pixels "
      f"(height x width), but its image {image['file_name']} {size[0]}x{size[1]}"
    )
  return mask
