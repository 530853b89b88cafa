"""Finds the boxes of objects among the features of a TFDS data set, such as voc/2007 and coco/2017."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ssl_jax.data.elements import Record
from ssl_jax.data.objects import Objects, repaired

FORMAT = "REL_YXYX"  # ymin, xmin, ymax, xmax as fractions of the sides of the image
# What is subtracted from xmin and ymin, in pixels: TFDS divides VOC's coordinates as they are, and they begin
# at 1. (xmax and ymax include the last pixel, and so are the edge of the box.)
FIRST_PIXEL = {"voc": 1.0}


class StoredObjects(NamedTuple):
  """Where a TFDS data set stores the objects of an image; names of features, "" where there is none."""

  boxes: str
  classes: str
  crowd: str
  difficult: str
  area: str
  names: tuple[str, ...]  # of the classes
  first_pixel: float = 0.0

  def stored(self, features: Mapping[str, Any], size: tuple[int, int], label: int) -> Record:
    """The fields of a record; broken boxes are repaired as in `objects.repaired`.

    Args:
      features: of the tf.train.Example.
      size: (width, height) of the image in pixels.
      label: the class of the image, which its objects have if they have none of their own; -1: they are of
        the only class.
    """
    sides = np.array([*size, *size], np.float64)
    first = np.array([self.first_pixel, self.first_pixel, 0, 0])
    stored = np.array(features[self.boxes].float_list.value, np.float64).reshape(-1, 4)
    boxes = stored[:, [1, 0, 3, 2]] * sides - first
    count, values = len(boxes), lambda name: features[name].int64_list.value
    flag = lambda name: np.array(values(name), bool) if name else np.zeros(count, bool)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    if self.area:
      area = np.array(values(self.area) or features[self.area].float_list.value, np.float64)
    objects = Objects(
      boxes=boxes.astype(np.float32),
      classes=np.array(values(self.classes) if self.classes else [max(label, 0)] * count, np.int32),
      crowd=flag(self.crowd),
      difficult=flag(self.difficult),
      area=area,
    )
    return repaired("", objects, *size).objects.record()


def find_objects(name: str, features: Mapping[str, Any], label: str) -> StoredObjects | None:
  """Returns where the objects of a data set are; None if it has none.

  They are the first sequence of features with a box in TFDS's usual format, and with a class, which is a
  `ClassLabel`, "label" if there are several. If they have no class, it is that of the image, or else they are
  of one class that is called as the sequence. Flags are called is_crowd and is_difficult.

  Args:
    name: of the data set.
    label: the feature with the class of the image; "": none.
  """
  for key, sequence in features.items():
    inner = getattr(sequence, "feature", None) if isinstance(sequence, tfds.features.Sequence) else None
    parts: dict[str, Any] = dict(inner.items()) if isinstance(inner, tfds.features.FeaturesDict) else {}
    boxes = [part for part, feature in parts.items() if _is_box(feature)]
    if not boxes:
      continue
    kinds = [part for part, feature in parts.items() if isinstance(feature, tfds.features.ClassLabel)]
    kind = "label" if "label" in kinds else (kinds or [""])[0]
    names = tuple(parts[kind].names) if kind else tuple(features[label].names) if label else (key,)
    if kind and label and names != tuple(features[label].names):
      continue  # the classes of the images are others, and a source has one list of names
    place = lambda part, key=key, parts=parts: f"{key}/{part}" if part in parts else ""
    return StoredObjects(
      boxes=f"{key}/{boxes[0]}",
      classes=place(kind),
      crowd=place("is_crowd"),
      difficult=place("is_difficult"),
      area=place("area"),
      names=names,
      first_pixel=FIRST_PIXEL.get(name, 0.0),
    )
  return None


def _is_box(feature: Any) -> bool:
  # Data sets that were prepared by older releases do not say the format, which was always this one.
  if not isinstance(feature, tfds.features.BBoxFeature):
    return False
  stored = getattr(feature, "bbox_format", None)
  return stored is None or stored.name == FORMAT
