"""Host transforms of images with objects: boxes, masks in the frames of boxes, points on people's bodies."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from ssl_jax.data import decode, instance_masks
from ssl_jax.data.dense_points import DenseRows
from ssl_jax.data.elements import Elements, Record, ShapeDtype
from ssl_jax.data.fit import Fit, Frame, Place, make_fit
from ssl_jax.data.mask_values import check_size


@dataclasses.dataclass(frozen=True)
class ImageAndBoxes:
  """See `image_boxes`, `image_instances` and `image_densepose`."""

  fitting: Fit
  max_boxes: int
  mask_size: int = 0  # side of the mask in the frame of each box; 0: none
  dense: DenseRows | None = None  # makes the arrays of annotated points
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The image, the size of the part of the canvas that it covers, and its padded boxes."""
    rows = self.max_boxes
    masks = {"boxes_mask": ShapeDtype((rows, self.mask_size, self.mask_size), np.uint8)}
    return {
      "image": ShapeDtype((*self.fitting.canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "boxes": ShapeDtype((rows, 4), np.float32),
      "boxes_class": ShapeDtype((rows,), np.int32),
      "boxes_crowd": ShapeDtype((rows,), np.bool_),
      "boxes_difficult": ShapeDtype((rows,), np.bool_),
      "boxes_valid": ShapeDtype((rows,), np.bool_),
      **(masks if self.mask_size else {}),
      **(self.dense.elements(rows) if self.dense else {}),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    opened = decode.open_image(record["image"])
    place = self.fitting.place(*opened.size)
    boxes, kept = self.fitting.boxes(np.asarray(record["boxes"], np.float32).reshape(-1, 4), place)
    if len(kept) > self.max_boxes:
      raise ValueError(
        f"an image has {len(kept)} boxes, but config.host.max_boxes is {self.max_boxes}; "
        f"use {len(kept)} or more"
      )
    rows = {
      "boxes": boxes[kept],
      "boxes_class": np.asarray(record["boxes_class"], np.int32)[kept],
      "boxes_crowd": np.asarray(record["boxes_crowd"], bool)[kept],
      "boxes_difficult": np.asarray(record["boxes_difficult"], bool)[kept],
      "boxes_valid": np.ones(len(kept), bool),
    }
    if self.mask_size:
      rows["boxes_mask"] = self._masks(record["instances"], boxes, kept, place)
    if self.dense:
      rows |= self.dense.rows([record["dense_points"][i] for i in kept], boxes[kept], place)
    padded = {name: _pad_rows(leaf, self.max_boxes) for name, leaf in rows.items()}
    return {"image": self.fitting.image(opened, place), "image_size": place.filled(), **padded}

  def _masks(self, instances, boxes: np.ndarray, kept: np.ndarray, place: Place) -> np.ndarray:
    """uint8[K, mask_size, mask_size]: what the boxes at indices `kept` show of their objects."""
    found = np.zeros((len(kept), self.mask_size, self.mask_size), np.uint8)
    frames = place.origin_of(boxes[kept])
    for row, (i, frame) in enumerate(zip(kept, frames, strict=True)):
      mask = instance_masks.pixels(instances[i])
      check_size(mask, place.full)
      found[row] = instance_masks.crop(mask, frame, self.mask_size)
    return found


def image_boxes(
  frame: Frame, *, fit: Literal["pad", "crop"] = "pad", max_boxes: int = 100, height: int = 0, width: int = 0
) -> ImageAndBoxes:
  """Makes the transform for an image with the boxes of its objects.

  Elements: "image" and "image_size" as in `host.image_mask`, and, padded to `max_boxes` rows: "boxes"
    f32[max_boxes, 4] (x1, y1, x2, y2) in continuous pixel coordinates of the canvas, "boxes_class" i32,
    "boxes_crowd" bool (the box encloses a crowd of objects, as in COCO), "boxes_difficult" bool (VOC's
    evaluation does not count the object) and "boxes_valid" bool, False for padding. Boxes are clipped to the
    image, and boxes without an area after clipping are dropped.

  Args:
    fit, height, width: as in `host.image_mask`.
  Raises: ValueError as `host.image_mask`, or if `max_boxes` is not positive.
  """
  if max_boxes < 1:
    raise ValueError(f"config.host.max_boxes is {max_boxes}; use a positive number, such as 100")
  return ImageAndBoxes(make_fit(frame, fit, "image_boxes", height, width), max_boxes)


def image_instances(
  frame: Frame,
  *,
  fit: Literal["pad", "crop"] = "pad",
  max_boxes: int = 100,
  mask_size: int = 56,
  height: int = 0,
  width: int = 0,
) -> ImageAndBoxes:
  """Makes the transform for an image with the boxes and the masks of its objects.

  Elements: as in `image_boxes`, and "boxes_mask" uint8[max_boxes, mask_size, mask_size], 1 inside the object:
    the mask in the frame of its box, whose sides become `mask_size` cells each. A cell is inside if at least
    half of it is. A mask of the whole image would take a hundred times the memory.

  Args:
    fit, height, width, max_boxes: as in `image_boxes`.
    mask_size: twice the resolution of a mask head by default (28 in Mask R-CNN), which cuts its targets for
      proposals out of these masks.
  Raises: ValueError as `image_boxes`, or if `mask_size` is not positive.
  """
  if mask_size < 1:
    raise ValueError(f"config.host.mask_size is {mask_size}; use a positive number, such as 56")
  boxes = image_boxes(frame, fit=fit, max_boxes=max_boxes, height=height, width=width)
  return dataclasses.replace(boxes, mask_size=mask_size)


def image_densepose(
  frame: Frame,
  *,
  fit: Literal["pad", "crop"] = "pad",
  max_boxes: int = 100,
  max_points: int = 196,
  segment_size: int = 112,
  symmetry: str = "",
  height: int = 0,
  width: int = 0,
) -> ImageAndBoxes:
  """Makes the transform for an image with people whose surface is annotated.

  Elements: as in `image_boxes`, and for each box, in its frame, whose corners are (0, 0) and (1, 1), padded
    to `max_points` points: "boxes_points" f32[max_boxes, max_points, 2] (x, y), "boxes_points_part" i32 from
    1 to 24, "boxes_points_uv" f32[..., 2] in [0, 1] and "boxes_points_valid" bool; "boxes_segments"
    uint8[max_boxes, segment_size, segment_size], the segment of the body from 1 to 14 and 0 for the
    background; and with `symmetry` "boxes_points_mirrored" f32[..., 2], the U and V that the points have
    after mirroring left and right, without which augmentations refuse to flip. Boxes that are not annotated
    have no valid point.

  Args:
    fit, height, width, max_boxes: as in `image_boxes`.
    max_points: 196, fourteen in each of 14 segments, is the most that DensePose-COCO has.
    segment_size: the resolution of the head's output by default.
    symmetry: path of DensePose's UV_symmetry_transforms.mat, see `body_parts.read_symmetry`, which
      `host.check_source` reads.
  Raises: ValueError as `image_boxes`, or if a number is not positive.
  """
  for name, value in (("max_points", max_points), ("segment_size", segment_size)):
    if value < 1:
      raise ValueError(f"config.host.{name} is {value}; use a positive number")
  boxes = image_boxes(frame, fit=fit, max_boxes=max_boxes, height=height, width=width)
  return dataclasses.replace(boxes, dense=DenseRows(max_points, segment_size, symmetry))


def _pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
  return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])
