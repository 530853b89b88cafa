"""DensePose's annotation of people: points with their places on the surface of the body, coarse segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import instance_masks
from ssl_jax.data.body_parts import PARTS, SEGMENTS, mirror_points, read_symmetry
from ssl_jax.data.elements import Elements, ShapeDtype
from ssl_jax.data.fit import Place
from ssl_jax.data.instance_masks import EncodedMask

SIDE = 256  # of the frame in which the file places points and segments
KEYS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V", "dp_masks")
_TOLERANCE = 0.01  # by which a U or V outside [0, 1] counts as rounding


class DensePoints(NamedTuple):
  """The annotation of one person."""

  frame: np.ndarray  # f32[4] pixels of the image, (x1, y1, x2, y2): the box as annotated, not clipped
  points: np.ndarray  # f32[p, 2], (x, y) in [0, 1] of the frame
  part: np.ndarray  # i32[p], 1 to 24; see body_parts.py
  uv: np.ndarray  # f32[p, 2] in [0, 1]
  segments: tuple[EncodedMask | None, ...]  # 14 masks of SIDE x SIDE pixels that cover the frame; None: empty


def from_coco(annotation: Mapping[str, Any]) -> DensePoints | None:
  """Reads KEYS and "bbox" of an annotation of DensePose-COCO; None if it has no points.

  Points outside of the box are left out, and U and V that exceed [0, 1] by rounding are clipped. Coordinates
  are divided by 256, as in the losses of detectron2; COCO's evaluation divides them by 255.

  Raises: ValueError for an incomplete annotation, lists of different lengths, numbers that are none or out of
    range, and masks that are not 14 of 256 x 256 pixels.
  """
  if not any(annotation.get(key) is not None for key in KEYS[:-1]):
    return None
  missing = [key for key in KEYS if annotation.get(key) is None]
  if missing:
    raise ValueError(f"its points lack {', '.join(missing)}; DensePose needs {', '.join(KEYS)}")
  x, y, part, u, v = (np.asarray(annotation[key], np.float64) for key in KEYS[:-1])
  if len({column.shape for column in (x, y, part, u, v)}) > 1 or x.ndim != 1:
    lengths = ", ".join(f"{key} {len(annotation[key])}" for key in KEYS[:-1])
    raise ValueError(f"its points have lists of different lengths: {lengths}")
  for key, values, low, high in (("dp_I", part, 1, PARTS), ("dp_U", u, 0, 1), ("dp_V", v, 0, 1)):
    slack = 0 if key == "dp_I" else _TOLERANCE
    wrong = values[~((values >= low - slack) & (values <= high + slack))]
    if len(wrong):
      raise ValueError(f"{key} of a point is {wrong[0]:g}; use {low} to {high}")
  if (part % 1).any():
    raise ValueError(f"dp_I of a point is {part[part % 1 > 0][0]:g}; use a whole number from 1 to {PARTS}")
  points = np.stack([x, y], 1)
  if not np.isfinite(points).all():
    raise ValueError("dp_x or dp_y of a point is not a finite number")
  kept = ((points >= 0) & (points <= SIDE)).all(1)
  left, top, width, height = map(float, annotation["bbox"])
  return DensePoints(
    np.array([left, top, left + width, top + height], np.float32),
    (points[kept] / SIDE).astype(np.float32),
    part[kept].astype(np.int32),
    np.stack([u, v], 1)[kept].clip(0, 1).astype(np.float32),
    _segments(annotation["dp_masks"]),
  )


def to_coco(dense: DensePoints) -> dict[str, Any]:
  """The KEYS of an annotation: the opposite of `from_coco`."""
  (x, y), (u, v) = (dense.points * SIDE).T.tolist(), dense.uv.T.tolist()
  masks = [[] if mask is None else instance_masks.to_coco(mask) for mask in dense.segments]
  return dict(zip(KEYS, (x, y, dense.part.tolist(), u, v, masks), strict=True))


def _segments(stored: Any) -> tuple[EncodedMask | None, ...]:
  if not isinstance(stored, Sequence) or len(stored) != SEGMENTS:
    raise ValueError(
      f"dp_masks has {len(stored)} masks; it needs {SEGMENTS}, [] for a segment that is not seen"
    )
  found = tuple(instance_masks.from_coco(mask, SIDE, SIDE) if mask else None for mask in stored)
  for number, mask in enumerate(found, 1):
    if mask is not None and mask[:2] != (SIDE, SIDE):
      raise ValueError(
        f"mask {number} of dp_masks has {mask.height}x{mask.width} pixels; it needs {SIDE}x{SIDE}"
      )
  return found


def segment_labels(dense: DensePoints) -> np.ndarray:
  """uint8[256, 256]: the number of the segment of each pixel of the frame, 0 for the background.

  Raises: DecodeError for run lengths that are damaged.
  """
  found = np.zeros((SIDE, SIDE), np.uint8)
  for number, mask in enumerate(dense.segments, 1):
    if mask is not None:
      found[instance_masks.pixels(mask)] = number
  return found


@dataclasses.dataclass(frozen=True)
class DenseRows:
  """Makes the arrays of the annotated points of boxes; see `object_transforms.image_densepose`."""

  max_points: int
  segment_size: int
  symmetry: str = ""  # path of the table of `body_parts.read_symmetry`; "": no mirrored U and V

  def elements(self, rows: int) -> Elements:
    """The arrays, of which each has `rows` rows."""
    points = (rows, self.max_points)
    made = {
      "boxes_points": ShapeDtype((*points, 2), np.float32),
      "boxes_points_part": ShapeDtype(points, np.int32),
      "boxes_points_uv": ShapeDtype((*points, 2), np.float32),
      "boxes_points_valid": ShapeDtype(points, np.bool_),
      "boxes_segments": ShapeDtype((rows, self.segment_size, self.segment_size), np.uint8),
    }
    mirrored = {"boxes_points_mirrored": ShapeDtype((*points, 2), np.float32)}
    return {**made, **mirrored} if self.symmetry else made

  def rows(
    self, annotations: Sequence[DensePoints | None], boxes: np.ndarray, place: Place
  ) -> dict[str, np.ndarray]:
    """The arrays of K boxes f32[K, 4] on the canvas, and of their annotations."""
    shapes = self.elements(len(boxes))
    made = {name: np.zeros(element.shape, element.dtype) for name, element in shapes.items()}
    for row, (dense, box) in enumerate(zip(annotations, boxes, strict=True)):
      if dense is not None:
        frame = dense.frame * place.scale() - place.shift()
        self._fill({name: leaf[row] for name, leaf in made.items()}, dense, frame, box)
    return made

  def _fill(self, row: dict[str, np.ndarray], dense: DensePoints, frame: np.ndarray, box: np.ndarray) -> None:
    count = len(dense.points)
    if count > self.max_points:
      raise ValueError(
        f"an object has {count} points, but config.host.max_points is {self.max_points}; use {count} or more"
      )
    placed = (frame[:2] + dense.points * (frame[2:] - frame[:2]) - box[:2]) / (box[2:] - box[:2])
    # A box is cut where it exceeds the image, and what lies in the part that is cut off is not seen.
    inside = np.all((placed >= -1e-6) & (placed <= 1 + 1e-6), axis=1)
    placed = np.clip(placed, 0, 1)
    row["boxes_points"][:count] = np.where(inside[:, None], placed, 0)
    row["boxes_points_part"][:count] = np.where(inside, dense.part, 0)
    row["boxes_points_uv"][:count] = np.where(inside[:, None], dense.uv, 0)
    row["boxes_points_valid"][:count] = inside
    row["boxes_segments"][:] = crop_labels(segment_labels(dense), frame, box, self.segment_size)
    if self.symmetry:
      mirrored = mirror_points(dense.part, dense.uv, read_symmetry(self.symmetry))
      row["boxes_points_mirrored"][:count] = np.where(inside[:, None], mirrored, 0)


def crop_labels(labels: np.ndarray, frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """[size, size]: the labels in a box f32[4], of the nearest pixel of [h, w] that cover the frame f32[4]."""
  index = []
  for axis in (1, 0):
    centres = box[axis] + (np.arange(size) + 0.5) * ((box[axis + 2] - box[axis]) / size)
    extent = labels.shape[1 - axis]
    place = np.floor((centres - frame[axis]) / (frame[axis + 2] - frame[axis]) * extent)
    index.append(place.clip(0, extent - 1).astype(np.int64))
  return labels[np.ix_(*index)]
