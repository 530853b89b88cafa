"""Boxes: area, overlap, encoding relative to other boxes, clipping, mirroring.

A box is f32[..., 4], (x1, y1, x2, y2) in continuous pixel coordinates: a box that covers one pixel has side
1. Arrays that are combined have the same rank.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# Decoded boxes are at most 1000 / 16 times as wide and as high as the box that they are relative to.
LARGEST_LOG_SCALE = math.log(1000 / 16)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
ROI_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

Weights = tuple[float, float, float, float]


def check_float32(**arrays: jax.Array) -> None:
  """Refuses coordinates in another type: bfloat16 has 8 bits, which is 4 pixels at 1,000.

  Raises: ValueError, naming the array and its type.
  """
  for name, array in arrays.items():
    if array.dtype != jnp.float32:
      raise ValueError(f"{name} has type {array.dtype}; use float32, in which coordinates stay exact")


def area(boxes: jax.Array) -> jax.Array:
  """f32[...] of boxes f32[..., 4], in square pixels; 0 where a side is negative."""
  sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
  return sides[..., 0] * sides[..., 1]


def intersection(first: jax.Array, second: jax.Array) -> jax.Array:
  """f32[N, M]: the area that each of boxes f32[N, 4] shares with each of f32[M, 4], in square pixels."""
  one, other = first[:, None], second[None]
  low, high = jnp.maximum(one[..., :2], other[..., :2]), jnp.minimum(one[..., 2:], other[..., 2:])
  sides = jnp.maximum(high - low, 0.0)
  return sides[..., 0] * sides[..., 1]


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
  """f32[N, M] in [0, 1]: intersection over union of boxes f32[N, 4] and f32[M, 4]; 0 for empty boxes.

  The matrix is materialised: callers with many boxes cut them with `in_tiles`.
  """
  shared = intersection(first, second)
  union = area(first)[:, None] + area(second)[None] - shared
  return _ratio(shared, union)


def covered_fraction(boxes: jax.Array, regions: jax.Array) -> jax.Array:
  """f32[N, M] in [0, 1]: the fraction of each of boxes f32[N, 4] that lies in each of regions f32[M, 4].

  COCO's overlap with a crowd: intersection over the area of the detection.
  """
  return _ratio(intersection(boxes, regions), area(boxes)[:, None])


def in_tiles(rows: jax.Array, size: int) -> jax.Array:
  """[ceil(N / size), size, ...] of rows [N, ...]; the last tile is padded with zeros (False)."""
  padding = -rows.shape[0] % size
  padded = jnp.pad(rows, [(0, padding)] + [(0, 0)] * (rows.ndim - 1))
  return padded.reshape(-1, size, *rows.shape[1:])


def encode(targets: jax.Array, sources: jax.Array, weights: Weights = RPN_WEIGHTS) -> jax.Array:
  """The deltas that move the source boxes to the target boxes: `decode(encode(t, s), s) == t`.

  Args:
    targets, sources: f32[..., 4], of the same rank.
    weights: factors of (dx, dy, dw, dh).
  Returns: f32[..., 4], (dx, dy, dw, dh) times the weights: the shift of the centre in sides of the source,
    and the logarithm of the scale. Finite for empty boxes, which stand for padding.
  Source: Ren et al. 2015, equation 2; weights as in Girshick's Fast R-CNN code.
  """
  check_float32(targets=targets, sources=sources)
  target_centre, target_sides = _centre(targets)
  source_centre, source_sides = _centre(sources)
  target_sides, source_sides = _not_empty(target_sides), _not_empty(source_sides)
  shift = (target_centre - source_centre) / source_sides
  deltas = jnp.concatenate([shift, jnp.log(target_sides / source_sides)], -1)
  return deltas * _row(weights, deltas.ndim)


def decode(
  deltas: jax.Array,
  sources: jax.Array,
  weights: Weights = RPN_WEIGHTS,
  *,
  largest_log_scale: float = LARGEST_LOG_SCALE,
) -> jax.Array:
  """The boxes f32[..., 4] to which the deltas move the source boxes; not clipped.

  Args:
    deltas: f32[..., 4], (dx, dy, dw, dh) times the weights. For deltas f32[N, K, 4] of K classes give
      `sources[:, None]`.
    sources: f32[..., 4], of the same rank.
    weights: factors of (dx, dy, dw, dh).
    largest_log_scale: bound on dw and dh after division by the weights, against overflow of the exponential.
  Source: Ren et al. 2015, equation 2.
  """
  check_float32(deltas=deltas, sources=sources)
  shift, log_scale = jnp.split(deltas / _row(weights, deltas.ndim), 2, -1)
  centre, sides = _centre(sources)
  centre = centre + shift * sides
  half = 0.5 * sides * jnp.exp(jnp.minimum(log_scale, largest_log_scale))
  return jnp.concatenate([centre - half, centre + half], -1)


def clip(boxes: jax.Array, image_size: jax.Array) -> jax.Array:
  """Boxes f32[..., 4] cut to an image of `image_size` [2], (height, width) in pixels."""
  height, width = jnp.asarray(image_size, jnp.float32)
  largest = jnp.stack([width, height, width, height])
  return jnp.clip(boxes, 0.0, largest.reshape((1,) * (boxes.ndim - 1) + (4,)))


def is_larger(boxes: jax.Array, side: float = 0.0) -> jax.Array:
  """bool[...]: both sides of boxes f32[..., 4] exceed `side` pixels. False for NaN."""
  return (boxes[..., 2:] - boxes[..., :2] > side).all(-1)


def mirror(boxes: jax.Array, width) -> jax.Array:
  """Boxes f32[..., 4] after mirroring left and right an image of `width` pixels; `width` may be traced."""
  width = jnp.asarray(width, jnp.float32)
  x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
  return jnp.stack([width - x2, y1, width - x1, y2], -1)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
  return jnp.where(part > 0, part / jnp.where(part > 0, whole, 1.0), 0.0)


def _centre(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(Centres (x, y), sides (width, height)), f32[..., 2] each."""
  sides = boxes[..., 2:] - boxes[..., :2]
  return boxes[..., :2] + 0.5 * sides, sides


def _not_empty(sides: jax.Array) -> jax.Array:
  return jnp.where(sides > 0, sides, 1.0)


def _row(weights: Weights, rank: int) -> jax.Array:
  return jnp.asarray(weights, jnp.float32).reshape((1,) * (rank - 1) + (4,))
