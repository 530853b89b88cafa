"""The objects of images: boxes with classes, flags and masks; how broken boxes are repaired; their source."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.dense_points import DensePoints
from ssl_jax.data.elements import Record
from ssl_jax.data.instance_masks import EncodedMask
from ssl_jax.data.reader import Source

ROUNDING = 0.5  # pixels by which a box may exceed its image without being counted as clipped
FIELDS = ("image", "label", "boxes", "boxes_class", "boxes_crowd", "boxes_difficult", "boxes_area")

Empty = Literal["keep", "drop"]


class Objects(NamedTuple):
  """The n objects of one image."""

  boxes: np.ndarray  # f32[n, 4], (x1, y1, x2, y2) in continuous pixel coordinates of the image
  classes: np.ndarray  # i32[n]
  crowd: np.ndarray  # bool[n]: the box encloses a crowd of objects, as in COCO
  difficult: np.ndarray  # bool[n]: VOC's evaluation does not count it
  area: np.ndarray  # f64[n] square pixels: of the mask where the data set has one, and otherwise of the box
  masks: tuple[EncodedMask, ...] | None = None  # n; None: the data set has boxes only
  # n, None for objects without annotated points; None: the data set has no points
  dense: tuple[DensePoints | None, ...] | None = None

  def record(self) -> Record:
    """The fields of a record besides image and label."""
    fields: dict[str, Any] = {
      "boxes": self.boxes,
      "boxes_class": self.classes,
      "boxes_crowd": self.crowd,
      "boxes_difficult": self.difficult,
      "boxes_area": self.area,
    }
    fields |= {} if self.masks is None else {"instances": self.masks}
    return fields if self.dense is None else {**fields, "dense_points": self.dense}

  def chosen(self, kept: np.ndarray) -> Objects:
    """The objects at indices i64[k]."""
    masks = None if self.masks is None else tuple(self.masks[i] for i in kept)
    dense = None if self.dense is None else tuple(self.dense[i] for i in kept)
    boxes, classes, crowd, difficult, area = (leaf[kept] for leaf in self[:5])
    return Objects(boxes, classes, crowd, difficult, area, masks, dense)


def of_record(record: Record) -> Objects:
  """The objects of a record of a source; see `Objects.record`."""
  boxes, kinds, crowd, difficult, area = (record[name] for name in FIELDS[2:])
  return Objects(boxes, kinds, crowd, difficult, area, record.get("instances"), record.get("dense_points"))


class Annotated(NamedTuple):
  """An image with its objects, and what their repair changed."""

  path: str
  objects: Objects
  clipped: int  # boxes that exceeded the image
  dropped: int  # boxes without area in the image


def repaired(path: str, objects: Objects, width: float, height: float) -> Annotated:
  """Clips boxes to their image, and drops those that have no area there (or are not numbers).

  Args:
    width, height: of the image in pixels; infinite where they are not known.
  """
  boxes = np.clip(objects.boxes, 0, np.array([width, height] * 2, np.float32))
  has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
  clipped = has_area & (np.abs(boxes - objects.boxes) > ROUNDING).any(1)
  kept = objects._replace(boxes=boxes).chosen(np.flatnonzero(has_area))
  return Annotated(path, kept, int(clipped.sum()), int((~has_area).sum()))


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectReader:
  """Reads encoded image files and their objects. Decoding is left to the pipeline."""

  paths: tuple[str, ...]
  objects: tuple[Objects, ...]  # by image

  def __len__(self) -> int:
    return len(self.paths)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [
      {"image": pathlib.Path(self.paths[i]).read_bytes(), "label": -1, **self.objects[i].record()}
      for i in indices
    ]

  def name(self, index: int) -> str:
    return self.paths[index]


def open_annotated(
  found: Mapping[str, Sequence[Annotated]],
  split: str,
  names: Sequence[str],
  *,
  empty: Empty,
  left_out: Sequence[str] = (),
) -> Source:
  """Makes the source of images with objects.

  Args:
    found: the images of every split that `split` names, in their order.
    names: of the classes.
    empty: whether images without an object other than a crowd are kept; a detector learns nothing but
      background from them.
    left_out: what else is not read; see `Source`. Repairs and dropped images are added.
  Raises: ValueError if no image is left, or as `splits.choose`.
  """
  places = splits.choose(split, {name: np.full(len(images), -1) for name, images in found.items()})
  images = [found[name][i] for name, chosen in places for i in chosen]
  total = len(images)
  if empty == "drop":
    images = [image for image in images if not image.objects.crowd.all()]
  if not images:
    raise ValueError(f"split={split!r}: none of its {total} images has an object; keep images without boxes")
  with_masks = all(image.objects.masks is not None for image in images)
  objects = [image.objects if with_masks else image.objects._replace(masks=None) for image in images]
  dense = all(of_image.dense is not None for of_image in objects)
  objects = objects if dense else [of_image._replace(dense=None) for of_image in objects]
  counts = (
    ("parts of {} outside their images", "box", sum(image.clipped for image in images)),
    ("{} without area", "box", sum(image.dropped for image in images)),
    ("{} without objects", "image", total - len(images)),
  )
  told = [text.format(_plural(count, noun)) for text, noun, count in counts if count]
  fields = (*FIELDS, *(("instances",) if with_masks else ()), *(("dense_points",) if dense else ()))
  points = [len(one.points) for of_image in objects for one in of_image.dense or () if one is not None]
  most = {"boxes": max(len(of_image.boxes) for of_image in objects)}
  return Source(
    ObjectReader(tuple(os.fspath(image.path) for image in images), tuple(objects)),
    len(names),
    tuple(names),
    None,
    fields=fields,
    most_rows={**most, "points": max(points, default=0)} if dense else most,
    order=splits.SHUFFLED,
    left_out=", ".join([*left_out, *told]),
  )


def _plural(count: int, noun: str) -> str:
  return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('x') else 's'}"
