"""DensePose's points and segments under an augmentation that moves boxes and may mirror left and right."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.data.body_parts import MIRRORED_PART, MIRRORED_SEGMENT
from ssl_jax.detect.densepose_losses import crop_segments

Record = dict[str, jax.Array]

MIRRORED = "boxes_points_mirrored"


def check_flip(record: Record, flip: float) -> None:
  """Refuses to mirror people whose points have no U and V for the other side of the body.

  Raises: ValueError for a positive probability `flip`, and a record with points, but without mirrored ones.
  """
  if flip and "boxes_points" in record and MIRRORED not in record:
    raise ValueError(
      f"config.augment.flip is {flip:g}, but mirroring exchanges the sides of bodies, whose U and V differ: "
      "set config.host.symmetry to the path of DensePose's UV_symmetry_transforms.mat, or use flip=0"
    )


def move_dense(record: Record, frames: jax.Array, boxes: jax.Array, flip: jax.Array) -> Record:
  """The entries of `object_transforms.image_densepose` after moving; that of the mirrored U and V is used up.

  Points outside of the output are not valid any more.

  Args:
    frames: f32[N, 4], the moved boxes; boxes: f32[N, 4], the same clipped to the output.
    flip: bool[], mirrored left and right. The parts and segments exchange their sides.
  """
  points = record["boxes_points"]
  points = jnp.stack([jnp.where(flip, 1 - points[..., 0], points[..., 0]), points[..., 1]], -1)
  part, segments = record["boxes_points_part"], record["boxes_segments"]
  frame_sides, sides = frames[:, None, 2:] - frames[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
  placed = frames[:, None, :2] + points * frame_sides - boxes[:, None, :2]
  placed = placed / jnp.where(sides > 0, sides, 1.0)
  inside = ((placed >= -1e-5) & (placed <= 1 + 1e-5)).all(-1) & (sides > 0).all(-1)
  valid = record["boxes_points_valid"] & inside
  seen = valid[..., None]
  uv = jnp.where(flip, record.get(MIRRORED, record["boxes_points_uv"]), record["boxes_points_uv"])
  exchanged = jnp.asarray(MIRRORED_SEGMENT, segments.dtype)[segments[:, :, ::-1]]
  crop = jax.vmap(lambda labels, frame, box: crop_segments(labels, frame, box, segments.shape[1]))
  moved = crop(jnp.where(flip, exchanged, segments), frames, boxes)
  return {
    "boxes_points": jnp.where(seen, placed.clip(0, 1), 0.0),
    "boxes_points_part": jnp.where(valid, jnp.where(flip, jnp.asarray(MIRRORED_PART)[part], part), 0),
    "boxes_points_uv": jnp.where(seen, uv, 0.0),
    "boxes_points_valid": valid,
    "boxes_segments": moved.astype(segments.dtype),
  }
