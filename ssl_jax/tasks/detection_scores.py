"""Scores of detections: average precision as VOC and as COCO define it. The two are different numbers.

Boxes are (x1, y1, x2, y2) in continuous pixel coordinates of the image at full resolution, for both. VOC's
own evaluation counts pixels from 1 and includes the last one, which gives the same overlaps: the width of its
(x1 + 1, y1 + 1, x2, y2) is x2 - x1.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data import instance_masks
from ssl_jax.data.instance_masks import EncodedMask
from ssl_jax.data.objects import Objects

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # of the intersection over union
FORMS = ("11-point", "area")
AREAS = ("all", "small", "medium", "large")  # COCO's: up to 32^2 and 96^2 square pixels
MAX_DETECTIONS = 100  # of an image that COCO counts

Form = Literal["11-point", "area"]
Kind = Literal["box", "mask"]


class Detected(NamedTuple):
  """The k detections of one image, in any order."""

  boxes: np.ndarray  # f32[k, 4]
  classes: np.ndarray  # i32[k]
  scores: np.ndarray  # f32[k]
  masks: tuple[EncodedMask, ...] | None = None  # k, of the whole image, as `from_pixels` encodes them


class VocScores(NamedTuple):
  """Average precision as VOC defines it, fractions in [0, 1]; nan without any truth."""

  form: Form
  ap: float  # the mean over THRESHOLDS, as COCO averages
  ap50: float
  ap75: float
  by_class: np.ndarray  # f64[10, C], by threshold; nan for classes without a truth that counts

  def scalars(self) -> dict[str, float]:
    """The three numbers by name, such as "voc_11_point_ap"; the main one first."""
    name = f"voc_{self.form.replace('-', '_')}"
    return {f"{name}_ap": self.ap, f"{name}_ap50": self.ap50, f"{name}_ap75": self.ap75}


class CocoScores(NamedTuple):
  """Average precision as COCO defines it, fractions in [0, 1]; nan where there is no truth."""

  kind: Kind
  ap: float  # the mean over THRESHOLDS
  ap50: float
  ap75: float
  small: float  # `ap` of objects of up to 32^2 square pixels
  medium: float
  large: float  # of more than 96^2
  by_class: np.ndarray  # f64[C]: `ap`; nan for classes without truth

  def scalars(self) -> dict[str, float]:
    """The numbers by name, such as "coco_box_ap"; the main one first."""
    name = f"coco_{self.kind}_ap"
    values = {"": self.ap, "50": self.ap50, "75": self.ap75}
    sizes = {"_small": self.small, "_medium": self.medium, "_large": self.large}
    return {f"{name}{end}": value for end, value in (values | sizes).items()}


def voc_scores(
  truths: Sequence[Objects],
  detections: Sequence[Detected],
  num_classes: int,
  *,
  form: Form,
  rounded: bool = False,
) -> VocScores:
  """The mean over the classes of VOC's average precision, at the overlaps of COCO.

  Args:
    truths, detections: of each image.
    form: "11-point" for VOC 2007, "area" for later years; the numbers differ by a few percent.
    rounded: scores are rounded to 0.001 and boxes to 0.1 pixels, as detectron2 does when it writes them for
      VOC's evaluation: for comparison with its numbers.
  Raises: ValueError as `voc_ap`.
  Source: Everingham et al. 2010, section 4.2; averaged over overlaps in He et al. 2020 (MoCo), table 2.
  """
  by_class = _voc(truths, detections, num_classes, THRESHOLDS, form, rounded)
  means = np.array([_mean(row, np.isfinite(row)) for row in by_class])
  at = lambda overlap: float(means[THRESHOLDS.index(overlap)])
  return VocScores(form, float(means.mean()), at(0.5), at(0.75), by_class)


def voc_ap(
  truths: Sequence[Objects],
  detections: Sequence[Detected],
  num_classes: int,
  *,
  overlap: float = 0.5,
  form: Form,
  rounded: bool = False,
) -> np.ndarray:
  """VOC's average precision of each class: f64[C]; nan for classes without a truth that counts.

  By falling score, a detection is right if it overlaps by more than `overlap` with the truth that it overlaps
  most with, and no detection before it did. Difficult truths do not count, and neither do detections of them.

  Args: as `voc_scores`.
    overlap: intersection over union.
  Raises: ValueError for another form, numbers of images that differ, a class out of range, or scores that are
    not finite.
  """
  return _voc(truths, detections, num_classes, (overlap,), form, rounded)[0]


def coco_scores(
  truths: Sequence[Objects], detections: Sequence[Detected], num_classes: int, *, kind: Kind = "box"
) -> CocoScores:
  """COCO's average precision of boxes or masks, computed by faster-coco-eval.

  Crowds are neither found nor missed: a detection whose part inside a crowd is large enough does not count.
  The sizes of objects are `Objects.area`. Difficult objects count as any other.

  Args:
    truths, detections: of each image; with masks for kind "mask". Of the detections of an image, the 100 of
      the highest score count in each class.
  Raises: ValueError as `voc_ap`, or if masks are missing; ModuleNotFoundError if faster-coco-eval is not
    installed.
  Source: Lin et al. 2014; https://cocodataset.org/#detection-eval.
  """
  _check(truths, detections, num_classes)
  if kind == "mask" and any(of_image.masks is None for of_image in (*truths, *detections)):
    raise ValueError("kind is 'mask', but there are truths or detections without masks; use 'box'")
  precision = _coco_precision(truths, detections, num_classes, kind)  # f64[10, 101, C, 4]
  known = precision > -1
  ap, small, medium, large = (_mean(precision[..., a], known[..., a]) for a in range(len(AREAS)))
  at = lambda row: _mean(precision[row, ..., 0], known[row, ..., 0])
  by_class = [_mean(precision[:, :, c, 0], known[:, :, c, 0]) for c in range(num_classes)]
  ap50, ap75 = at(THRESHOLDS.index(0.5)), at(THRESHOLDS.index(0.75))
  return CocoScores(kind, ap, ap50, ap75, small, medium, large, np.array(by_class))


def _coco_precision(truths, detections, num_classes: int, kind: Kind) -> np.ndarray:
  """f64[10, 101, C, 4] by overlap, recall, class and AREAS; -1 where there is no truth."""
  library = coco_library()
  annotations = [
    {
      **_coco_item(image, of_image, i, kind),
      "bbox": _corner_and_sides(of_image.boxes[i]),
      "area": float(of_image.area[i]),
      "iscrowd": int(of_image.crowd[i]),
    }
    for image, of_image in enumerate(truths)
    for i in range(len(of_image.boxes))
  ]
  found = [
    {**_coco_item(image, of_image, i, kind), "score": float(of_image.scores[i])}
    | ({"bbox": _corner_and_sides(of_image.boxes[i])} if kind == "box" else {})
    for image, of_image in enumerate(detections)
    for i in range(len(of_image.boxes))
  ]
  truth = library.COCO(
    {
      "images": [{"id": image, **_size(of_image)} for image, of_image in enumerate(truths)],
      # The evaluation takes number 0 for "no match", so annotations are numbered from 1.
      "annotations": [{"id": number, **item} for number, item in enumerate(annotations, 1)],
      "categories": [{"id": c, "name": str(c)} for c in range(num_classes)],
    }
  )
  evaluation = library.COCOeval_faster(truth, truth.loadRes(found), "bbox" if kind == "box" else "segm")
  evaluation.params.maxDets = [1, 10, MAX_DETECTIONS]
  evaluation.evaluate()
  evaluation.accumulate()
  return np.asarray(evaluation.eval["precision"], np.float64)[..., -1]


def coco_library() -> Any:
  """The package that computes COCO's scores. Raises ModuleNotFoundError if it is not installed."""
  try:
    return importlib.import_module("faster_coco_eval")
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "COCO's scores need faster-coco-eval, which is not installed; pip install 'ssl_jax[detection]'"
    ) from error


def _coco_item(image: int, of_image: Objects | Detected, i: int, kind: Kind) -> dict[str, Any]:
  item: dict[str, Any] = {"image_id": image, "category_id": int(of_image.classes[i])}
  if kind == "mask" and of_image.masks is not None:
    item["segmentation"] = instance_masks.to_coco(of_image.masks[i])
  return item


def _size(of_image: Objects) -> dict[str, int]:
  """The size of an image, which only masks have; nothing depends on it."""
  height, width = of_image.masks[0][:2] if of_image.masks else (1, 1)
  return {"height": height, "width": width}


def _corner_and_sides(box: np.ndarray) -> list[float]:
  x1, y1, x2, y2 = map(float, box)
  return [x1, y1, x2 - x1, y2 - y1]


class _Ranked(NamedTuple):
  """The detections of one class, by falling score, and the truth that each overlaps most with."""

  overlap: np.ndarray  # f64[k]; 0 without a truth in the image
  truth: np.ndarray  # i64[k]: its number among all truths of the class
  difficult: np.ndarray  # bool[k]: whether it is difficult
  positives: int  # truths that count


def _voc(truths, detections, num_classes: int, thresholds, form: str, rounded: bool) -> np.ndarray:
  """f64[thresholds, C]."""
  if form not in FORMS:
    raise ValueError(f"form is {form!r}{nearest(form, FORMS)}")
  _check(truths, detections, num_classes)
  average = _eleven_points if form == "11-point" else _area_under
  ranked = [_ranked(truths, detections, c, rounded) for c in range(num_classes)]
  return np.array([[average(*_curve(one, overlap)) for one in ranked] for overlap in thresholds])


def _ranked(truths, detections, number: int, rounded: bool) -> _Ranked:
  rows, offset, positives = [], 0, 0
  for truth, found in zip(truths, detections, strict=True):
    of_class = truth.classes == number
    boxes, difficult = truth.boxes[of_class], truth.difficult[of_class]
    chosen = found.classes == number
    candidates, scores = found.boxes[chosen], np.asarray(found.scores, np.float64)[chosen]
    if rounded:
      candidates, scores = np.round(candidates.astype(np.float64), 1), np.round(scores, 3)
    overlaps = np.zeros(len(scores))
    best = np.zeros(len(scores), np.int64)
    if len(boxes) and len(scores):
      every = box_iou(candidates, boxes)
      best, overlaps = every.argmax(1), every.max(1)
    flags = difficult[best] if len(boxes) else np.zeros(len(scores), bool)
    rows.append((scores, overlaps, best + offset, flags))
    offset += len(boxes)
    positives += int((~difficult).sum())
  columns = [np.concatenate(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0)] * 4
  order = np.argsort(-columns[0], kind="stable")
  overlaps, truth, flags = (column[order] for column in columns[1:])
  return _Ranked(overlaps, truth, flags.astype(bool), positives)


def _curve(ranked: _Ranked, overlap: float) -> tuple[np.ndarray, np.ndarray]:
  """(recall, precision) after each detection, f64[k]; recall is nan if there is no truth that counts."""
  hit = ranked.overlap > overlap
  counted = np.flatnonzero(hit & ~ranked.difficult)
  first = np.unique(ranked.truth[counted], return_index=True)[1]
  right = np.zeros(len(hit))
  right[counted[first]] = 1
  wrong = ~(hit & ranked.difficult) & (right == 0)
  rights, wrongs = np.cumsum(right), np.cumsum(wrong)
  if not ranked.positives:
    return np.full(len(hit) or 1, np.nan), np.zeros(len(hit) or 1)
  return rights / ranked.positives, rights / np.maximum(rights + wrongs, 1)


def _eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
  """The mean over 11 recalls of the highest precision at that recall or a higher one (VOC 2007)."""
  if np.isnan(recall).any():
    return float("nan")
  # In steps of 0.1 in float64, as VOC's evaluation has them: 3 * 0.1 is slightly more than 0.3.
  points = [precision[recall >= step * 0.1] for step in range(11)]
  return float(np.mean([found.max() if len(found) else 0.0 for found in points]))


def _area_under(recall: np.ndarray, precision: np.ndarray) -> float:
  """The area under the precision, made monotonic from the right (VOC from 2010 on)."""
  if np.isnan(recall).any():
    return float("nan")
  highest = np.maximum.accumulate(precision[::-1])[::-1]
  return float((np.diff(recall, prepend=0) * highest).sum())


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Intersection over union, f64[N, M] of boxes [N, 4] and [M, 4]; 0 for empty boxes."""
  one, other = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
  sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
  shared = np.prod(np.maximum(sides, 0), axis=-1)
  area = lambda boxes: np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
  return np.where(shared > 0, shared / np.where(shared > 0, area(one) + area(other) - shared, 1), 0.0)


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
  return float(values[counted].mean()) if counted.any() else float("nan")


def _check(truths: Sequence[Objects], detections: Sequence[Detected], num_classes: int) -> None:
  if len(truths) != len(detections):
    raise ValueError(f"there are truths of {len(truths)} images, but detections of {len(detections)}")
  for image, of_image in enumerate((*truths, *detections)):
    wrong = of_image.classes[(of_image.classes < 0) | (of_image.classes >= num_classes)]
    if len(wrong):
      raise ValueError(
        f"image {image % len(truths)} has an object of class {wrong[0]}; there are {num_classes} classes, "
        "numbered from 0"
      )
  for image, found in enumerate(detections):
    if not np.isfinite(found.scores).all():
      raise ValueError(f"a detection of image {image} has a score that is not finite")
