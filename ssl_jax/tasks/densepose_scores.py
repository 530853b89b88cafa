"""Scores of DensePose: geodesic point similarity, and average precision as COCO defines it on top of it.

What the numbers depend on is part of their names: `distance`, how far apart two points of the surface are,
and `kappa`, the distance at which the similarity is exp(-1/2). KAPPA is that of the paper; `part_kappa` are
the values for parts of the body since the challenge of 2019. Scores of the two do not compare.

Source: Güler et al. 2018, "DensePose", section 2.2; what does not count is as in detectron2's evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data.body_parts import SEGMENT_OF_PART
from ssl_jax.data.dense_points import DensePoints, crop_labels, segment_labels
from ssl_jax.data.objects import Objects
from ssl_jax.tasks.body_surface import Distance, Surface
from ssl_jax.tasks.detection_scores import THRESHOLDS, box_iou

KAPPA = 0.255  # metres; half of the similarity is lost at 0.3
# Of segments of the body: torso, hands, feet, upper legs, lower legs, upper arms, lower arms, head; metres.
_PART_KAPPA = (0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150)
_KINDS_OF_SEGMENT = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7])  # of the segments 1 to 14
MAX_DETECTIONS = 20  # of an image
LEAST_OVERLAP = 0.8  # of boxes, from which a detection of a person without annotation does not count
AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # square pixels
RECALLS = np.linspace(0, 1, 101)
PIXELS = 256  # of a side of the frame in which the masks of a truth and a detection are compared

Kappa = Literal["paper", "parts"]
Kind = Literal["gps", "gpsm"]


class DenseDetected(NamedTuple):
  """The k detections of people in one image, in any order. Pixels are those of the frames of the boxes."""

  boxes: np.ndarray  # f32[k, 4] pixels of the image at full resolution
  scores: np.ndarray  # f32[k]
  parts: np.ndarray  # uint8[k, S, S], 1 to 24; 0 for the background
  uv: np.ndarray  # f32[k, S, S, 2] in [0, 1]


class GpsScores(NamedTuple):
  """Average precision, fractions in [0, 1]; nan where there is no truth."""

  kind: Kind
  kappa: Kappa
  distance: str  # its name
  ap: float  # the mean over THRESHOLDS
  ap50: float
  ap75: float
  medium: float  # `ap` of objects of 32^2 to 96^2 square pixels
  large: float
  recall: float  # the mean over THRESHOLDS of the largest recall

  def scalars(self) -> dict[str, float]:
    """The numbers by name, such as "geodesic_gps_ap" or "geodesic_gps_ap_part_kappa"; the main one first."""
    name, end = f"{self.distance}_{self.kind}_", "" if self.kappa == "paper" else "_part_kappa"
    values = {"ap": self.ap, "ap50": self.ap50, "ap75": self.ap75}
    values |= {"ap_medium": self.medium, "ap_large": self.large, "recall": self.recall}
    return {f"{name}{key}{end}": value for key, value in values.items()}


def part_kappa() -> np.ndarray:
  """f64[25]: the kappa of each part for `kappa="parts"`; nan for the background."""
  return np.array([np.nan, *(_PART_KAPPA[_KINDS_OF_SEGMENT[s - 1]] for s in SEGMENT_OF_PART[1:])])


def point_similarity(
  truth: DensePoints, box: np.ndarray, parts: np.ndarray, uv: np.ndarray, *, distance: Distance, kappa: Kappa
) -> float:
  """The geodesic point similarity of a detection with an annotated person, in [0, 1].

  The mean over the annotated points of exp(-d^2 / (2 kappa^2)); points where the detection sees no body, or
  that lie outside of its box, count 0.

  Args:
    box: f32[4], (x1, y1, x2, y2) in pixels of the image.
    parts, uv: uint8[S, S] and f32[S, S, 2] in the frame of the box.
  """
  if not len(truth.points):
    return 0.0
  size = len(parts)
  at = truth.frame[:2] + truth.points * (truth.frame[2:] - truth.frame[:2])
  place = np.floor((at - box[:2]) / np.maximum(box[2:] - box[:2], 1e-6) * size).astype(np.int64)
  inside = np.all((place >= 0) & (place < size), axis=1)
  column, row = place.clip(0, size - 1).T
  seen = inside & (parts[row, column] > 0)
  wanted = Surface(truth.part[seen], truth.uv[seen])
  found = Surface(parts[row, column][seen].astype(np.int32), uv[row, column][seen])
  scale = KAPPA if kappa == "paper" else part_kappa()[wanted.part]
  return float(np.exp(-np.square(distance(wanted, found)) / (2 * np.square(scale))).sum() / len(seen))


def mask_overlap(truth: DensePoints, box: np.ndarray, parts: np.ndarray) -> float:
  """Intersection over union of the annotated segments and what the detection sees of the body.

  Both are compared on PIXELS x PIXELS cells of the smallest rectangle that contains both frames.
  """
  both = np.concatenate([np.minimum(truth.frame[:2], box[:2]), np.maximum(truth.frame[2:], box[2:])])
  one = _within(segment_labels(truth), truth.frame, both) > 0
  other = _within(parts, box, both) > 0
  union = (one | other).sum()
  return float((one & other).sum() / union) if union else 0.0


def _within(labels: np.ndarray, frame: np.ndarray, rectangle: np.ndarray) -> np.ndarray:
  """[PIXELS, PIXELS]: the labels [h, w] of a frame in a rectangle, 0 outside of the frame."""
  cells = [
    rectangle[i] + (np.arange(PIXELS) + 0.5) * ((rectangle[i + 2] - rectangle[i]) / PIXELS) for i in (1, 0)
  ]
  inside = [(place >= frame[i]) & (place < frame[i + 2]) for place, i in zip(cells, (1, 0), strict=True)]
  if frame[2] <= frame[0] or frame[3] <= frame[1]:
    return np.zeros((PIXELS, PIXELS), labels.dtype)
  return np.where(inside[0][:, None] & inside[1][None], crop_labels(labels, frame, rectangle, PIXELS), 0)


class Compared(NamedTuple):
  """The k best detections of an image, by falling score, against its n people."""

  scores: np.ndarray  # f64[k]
  similarity: np.ndarray  # f64[k, n], geodesic; 0 of people who are not annotated
  masked: np.ndarray  # f64[k, n], sqrt(similarity x mask IoU)
  box_overlap: np.ndarray  # f64[k, n]
  annotated: np.ndarray  # bool[n]
  truth_area: np.ndarray  # f64[n] square pixels
  area: np.ndarray  # f64[k], of the boxes


def compare(truth: Objects, detected: DenseDetected, *, distance: Distance, kappa: Kappa) -> Compared:
  """Compares the detections of one image with its people.

  Args:
    truth: with `dense`.
    distance: see body_surface.py.
    kappa: "paper": KAPPA; "parts": `part_kappa`.
  Raises: ValueError for a truth without points, another kappa, or scores that are not finite.
  """
  if kappa not in ("paper", "parts"):
    raise ValueError(f"kappa is {kappa!r}{nearest(kappa, ('paper', 'parts'))}")
  if truth.dense is None:
    raise ValueError("an image has no annotation of DensePose; use a data set that has dp_x, dp_y and so on")
  if not np.isfinite(detected.scores).all():
    raise ValueError("a detection has a score that is not finite")
  order = np.argsort(-detected.scores, kind="stable")[:MAX_DETECTIONS]
  boxes = detected.boxes[order]
  similarity, masked = np.zeros((2, len(order), len(truth.boxes)))
  for column, person in enumerate(truth.dense):
    if person is None:
      continue
    for row, i in enumerate(order):
      box, parts, uv = detected.boxes[i], detected.parts[i], detected.uv[i]
      similarity[row, column] = point_similarity(person, box, parts, uv, distance=distance, kappa=kappa)
      if similarity[row, column]:
        masked[row, column] = np.sqrt(similarity[row, column] * mask_overlap(person, box, parts))
  return Compared(
    np.asarray(detected.scores, np.float64)[order],
    similarity,
    masked,
    box_iou(boxes, truth.boxes),
    np.array([person is not None for person in truth.dense], bool),
    np.asarray(truth.area, np.float64),
    np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64),
  )


def densepose_scores(
  images: Sequence[Compared], *, distance: str, kappa: Kappa = "paper"
) -> tuple[GpsScores, GpsScores]:
  """Average precision of the geodesic point similarity, and of its masked form: (gps, gpsm).

  People without points are neither found nor missed: a detection that matches nobody, and whose box overlaps
  most with one of them, by LEAST_OVERLAP, does not count, nor does one in an image without points.
  (detectron2 decides that for all thresholds by the matches at 0.95.)

  Args:
    distance, kappa: their names, with which the images were compared.
  """
  kinds: tuple[tuple[Kind, int], ...] = (("gps", 1), ("gpsm", 2))
  gps, gpsm = (_scores(kind, [(image, image[i]) for image in images], kappa, distance) for kind, i in kinds)
  return gps, gpsm


def _scores(kind: Kind, images: list[tuple[Compared, np.ndarray]], kappa: Kappa, distance: str) -> GpsScores:
  by_area = {name: _average_precision(images, limits) for name, limits in AREAS.items()}
  precision, recall = by_area["all"]
  at = lambda threshold: float(precision[THRESHOLDS.index(threshold)])
  medium, large = (float(by_area[name][0].mean()) for name in ("medium", "large"))
  return GpsScores(
    kind, kappa, distance, float(precision.mean()), at(0.5), at(0.75), medium, large, float(recall.mean())
  )


def _average_precision(images: list[tuple[Compared, np.ndarray]], limits: tuple[float, float]):
  """(Average precision, largest recall), f64[10] by threshold; nan without a truth in the limits of areas."""
  rows, people = [], 0
  for image, similarity in images:
    counted = image.annotated & (image.truth_area >= limits[0]) & (image.truth_area <= limits[1])
    hit, ignored = _match(image, similarity, counted)
    other_size = (image.area < limits[0]) | (image.area > limits[1])
    rows.append((image.scores, hit.T, (ignored | (~hit & other_size[None])).T))
    people += int(counted.sum())
  if not people:
    return np.full((2, len(THRESHOLDS)), np.nan)
  scores, hit, ignored = (np.concatenate(column) for column in zip(*rows, strict=True))
  order = np.argsort(-scores, kind="stable")
  curves = [
    _curve(hit[order, t] & ~ignored[order, t], ~ignored[order, t], people) for t in range(len(THRESHOLDS))
  ]
  return np.array(curves).T


def _curve(right: np.ndarray, counted: np.ndarray, people: int) -> tuple[float, float]:
  """(Average precision over RECALLS, the largest recall) of detections bool[k] by falling score."""
  rights, total = np.cumsum(right), np.cumsum(counted)
  recall, precision = rights / people, rights / np.maximum(total, 1)
  highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
  place = np.searchsorted(recall, RECALLS, side="left")
  return float(highest[place].mean()), float(recall[-1]) if len(recall) else 0.0


def _match(image: Compared, similarity: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(Whether each detection is matched, whether it does not count), bool[10, k] by threshold.

  By falling score each detection takes the most similar person who is free, counted people first.
  """
  hit, ignored = np.zeros((2, len(THRESHOLDS), len(similarity)), bool)
  if not counted.any():
    return hit, ~ignored
  for t, threshold in enumerate(THRESHOLDS):
    free = np.ones(len(counted), bool)
    for i, row in enumerate(similarity):
      for group in (counted, ~counted):
        values = np.where(free & group, row, 0.0)
        if len(values) and values.max() >= min(threshold, 1 - 1e-10):
          # The last of equal ones, as COCO's evaluation takes it.
          best = len(values) - 1 - int(values[::-1].argmax())
          hit[t, i], ignored[t, i], free[best] = True, not counted[best], False
          break
    overlap = np.where(free[None], image.box_overlap, 0.0)
    near = overlap.max(1) >= LEAST_OVERLAP
    ignored[t] |= ~hit[t] & near & ~counted[overlap.argmax(1)]
  return hit, ignored
