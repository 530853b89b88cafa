"""Masks of instances: targets of a mask head cut from the ground truth; predictions pasted into the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.detect.anchors import Convention
from ssl_jax.detect.boxes import check_float32
from ssl_jax.detect.roi_align import PRECISION, axis_taps, chunked, dense

MEMORY = 2**26


@jax.named_scope("crop_masks")
def crop_masks(
  masks: jax.Array,
  index: jax.Array,
  boxes: jax.Array,
  *,
  size: int,
  samples: int = 2,
  frames: jax.Array | None = None,
  threshold: float | None = 0.5,
  memory: int = MEMORY,
) -> jax.Array:
  """The part of a ground-truth mask that lies in each box, resized to `size` x `size`: RoIAlign of the mask.

  Args:
    masks: [G, H, W] bool, uint8 0 or 1, or f32 in [0, 1].
    index: i32[R]: which mask each box takes; between 0 and G - 1.
    boxes: f32[R, 4] pixels of the image; the proposals, not the boxes of the ground truth.
    size: P, 28 in Mask R-CNN.
    samples: samples in a pixel of the result along each axis; see `roi_align`.
    frames: f32[G, 4] pixels: the rectangle of the image that each mask covers. By default masks cover the
      image, pixel by pixel.
    threshold: the result is >= threshold; None returns the fractions.
    memory: bytes of float32 temporaries at a time.
  Returns: bool[R, P, P], or f32 in [0, 1] without a threshold. Samples outside
    the frame are 0.
  Raises: ValueError for boxes that are not float32.
  Source: He et al. 2017 (Mask R-CNN), section 3.1; threshold as in detectron2's BitMasks.
  """
  check_float32(boxes=boxes)
  boxes = lax.stop_gradient(boxes)
  _, height, width = masks.shape
  extents = (width, height)
  if frames is None:
    frames = jnp.array([[0.0, 0.0, width, height]] * masks.shape[0])

  def one(row):
    index, box = row
    frame, mask = frames[index], masks[index].astype(jnp.float32)
    columns, rows = (_frame_matrix(box, frame, i, extents[i], size, samples) for i in (0, 1))
    halfway = jnp.einsum("ph,hw->pw", rows, mask, precision=PRECISION)
    return jnp.einsum("pw,qw->pq", halfway, columns, precision=PRECISION)

  found = chunked(one, (index, boxes), height * width * 4, memory)
  # A fraction that equals the threshold must not fall below it by rounding.
  return found if threshold is None else found >= threshold - 1e-5


def _frame_matrix(box, frame, axis: int, extent: int, size: int, samples: int) -> jax.Array:
  """f32[size, extent]: the taps of a box along an axis of the mask that covers the frame."""
  side = frame[axis + 2] - frame[axis]
  scale = extent / jnp.where(side > 0, side, 1.0)
  start, length = (box[axis] - frame[axis]) * scale, (box[axis + 2] - box[axis]) * scale
  taps = axis_taps(start - 0.5, length, extent, size=size, samples=samples, margin=0.5)
  return dense(taps, extent)


def paste_masks(
  masks: jax.Array,
  boxes: jax.Array,
  *,
  height: int,
  width: int,
  threshold: float | None = 0.5,
  convention: Convention = "detectron2",
  memory: int = MEMORY,
) -> jax.Array:
  """Masks of boxes as masks of the image: bilinear resampling, 0 outside the box.

  Args:
    masks: f32[N, P, P] in [0, 1], predicted in the frame of the box.
    boxes: f32[N, 4] pixels; a box without area gives an empty mask.
    height, width: of the image, pixels.
    threshold: the result is >= threshold; None returns the resampled values.
    convention: "torchvision": a border of zeros is put around the mask, the box grows as much, its corners
      are cut to whole pixels, and it covers its last pixel, too.
    memory: bytes of float32 temporaries at a time.
  Returns: bool[N, height, width], or f32 without a threshold.
  Raises: ValueError for boxes or masks that are not float32, and for another convention.
  Source: He et al. 2017 (Mask R-CNN), section 3.1; resampling as in the function paste_masks_in_image of
    both code bases.
  """
  check_float32(masks=masks, boxes=boxes)
  matrices = {"detectron2": _paste_matrix, "torchvision": _whole_pixel_matrix}
  if convention not in matrices:
    raise ValueError(
      f"convention {convention!r} of pasted masks is unknown; use 'detectron2' or 'torchvision'"
    )
  matrix = matrices[convention]

  def one(row):
    mask, box = row
    rows, columns = (
      matrix(box[axis], box[axis + 2], extent, mask.shape[0]) for axis, extent in ((1, height), (0, width))
    )
    halfway = jnp.einsum("hp,pq->hq", rows, mask, precision=PRECISION)
    found = jnp.einsum("hq,wq->hw", halfway, columns, precision=PRECISION)
    return found if threshold is None else found >= threshold

  return chunked(one, (masks, boxes), height * width * 4, memory)


def _paste_matrix(start, end, extent: int, size: int) -> jax.Array:
  """f32[extent, size]: bilinear weights of the mask's pixels for each pixel centre of the image."""
  side = end - start
  place = (jnp.arange(extent, dtype=jnp.float32) + 0.5 - start) / jnp.where(side > 0, side, 1.0) * size - 0.5
  weight = jnp.maximum(1.0 - jnp.abs(place[:, None] - jnp.arange(size, dtype=jnp.float32)[None]), 0.0)
  return jnp.where(side > 0, weight, 0.0)


def _whole_pixel_matrix(start, end, extent: int, size: int) -> jax.Array:
  """f32[extent, size]: as `_paste_matrix`, with the box and the mask extended by a pixel of the mask."""
  padded = size + 2
  centre, half = (start + end) * 0.5, (end - start) * 0.5 * (padded / size)
  first, last = jnp.trunc(centre - half), jnp.trunc(centre + half)
  pixels = jnp.maximum(last - first + 1, 1.0)
  offset = jnp.arange(extent, dtype=jnp.float32) - first
  place = jnp.clip((offset + 0.5) * padded / pixels - 0.5, 0.0, padded - 1.0)
  weight = jnp.maximum(1.0 - jnp.abs(place[:, None] - 1 - jnp.arange(size, dtype=jnp.float32)[None]), 0.0)
  return jnp.where(((offset >= 0) & (offset < pixels) & (end > start))[:, None], weight, 0.0)
