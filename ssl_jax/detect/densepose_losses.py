"""The losses of DensePose for the RoIs of an image, as sums and counts: a batch is added up and divided once.

Annotated points and the coarse segmentation are given in the frame of the box of their object: (0, 0) is its
upper left corner and (1, 1) its lower right one.

Source: Güler et al. 2018, "DensePose", section 3; details as in detectron2's project DensePose.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.detect import boxes as box_ops
from ssl_jax.detect.losses import Truth, smooth_l1
from ssl_jax.detect.proposals import Rois

LEAST_IOU = 0.7  # of a RoI and its object
COARSE_WEIGHT, FINE_WEIGHT, UV_WEIGHT = 5.0, 1.0, 0.01
NAMES = ("boxes_points", "boxes_points_part", "boxes_points_uv", "boxes_points_valid", "boxes_segments")


class DenseLogits(NamedTuple):
  """The outputs of the head for RoIs whose sides are divided into S pixels each."""

  coarse: jax.Array  # f32[..., S, S, 2 or 15] of a person, or of its 14 segments; 0 is the background
  fine: jax.Array  # f32[..., S, S, 25] of the 24 parts; 0 is the background
  u: jax.Array  # f32[..., S, S, 25]: U for each part
  v: jax.Array  # f32[..., S, S, 25]


class DenseTargets(NamedTuple):
  """The annotation of the G objects of an image, in the frames of their boxes; NAMES are its entries."""

  points: jax.Array  # f32[G, P, 2], (x, y) in [0, 1]
  part: jax.Array  # i32[G, P], 1 to 24
  uv: jax.Array  # f32[G, P, 2] in [0, 1]
  valid: jax.Array  # bool[G, P]; an object without a valid point is not annotated
  segments: jax.Array  # uint8[G, S', S'], 0 to 14


class DenseRois(NamedTuple):
  """The RoIs on which the losses are computed."""

  boxes: jax.Array  # f32[D, 4] pixels
  truth: jax.Array  # i32[D], the row of the object
  valid: jax.Array  # bool[D]


class DenseTerms(NamedTuple):
  """Sums over the pixels or points of an image, and what they are divided by; f32[] each."""

  coarse: jax.Array  # nats
  pixels: jax.Array
  fine: jax.Array  # nats
  uv: jax.Array
  points: jax.Array


def select_rois(rois: Rois, truth: Truth, annotated: jax.Array, *, count: int) -> DenseRois:
  """The first `count` foreground RoIs of an annotated object with which they overlap by LEAST_IOU or more.

  Args:
    annotated: bool[G].
  """
  one, other = rois.boxes, truth.boxes[rois.truth]
  overlap = jax.vmap(lambda a, b: box_ops.iou(a[None], b[None])[0, 0])(one, other)
  eligible = rois.foreground & rois.valid & annotated[rois.truth] & (overlap >= LEAST_IOU)
  rows = jnp.argsort(~eligible, stable=True)[:count]
  valid = eligible[rows]
  return DenseRois(jnp.where(valid[:, None], one[rows], 0.0), jnp.where(valid, rois.truth[rows], 0), valid)


def dense_terms(
  logits: DenseLogits, rois: DenseRois, boxes: jax.Array, targets: DenseTargets, *, aligned: bool = True
) -> DenseTerms:
  """The terms of one image.

  The outputs are read at the annotated points that lie in the RoI, bilinearly between the centres of pixels.
  Fine: cross-entropy of the part. U and V: smooth L1 of the outputs for the true part; other parts get no
  gradient. Coarse: cross-entropy of the segment at the centre of each pixel, which is background outside of
  the object's box.

  Args:
    logits: with the leading axis D.
    boxes: f32[G, 4] pixels, of the objects.
    aligned: False is the legacy form, in which pixel i lies at i instead of i + 1/2.
  """
  own = jax.tree.map(lambda leaf: leaf[rois.truth], targets)
  frames = boxes[rois.truth]
  places, inside = _in_rois(own.points, frames, rois.boxes)
  counted = inside & own.valid & rois.valid[:, None]
  size = logits.fine.shape[1]
  read = jax.vmap(lambda values, at: sample_bilinear(values, at * size - (0.5 if aligned else 0.0)))
  part = jnp.where(counted, own.part, 0)
  # At coordinates that stand for padding nothing is NaN: a masked NaN would still spoil the gradient.
  places = jnp.where(counted[..., None], places, 0.5)
  fine = optax.softmax_cross_entropy_with_integer_labels(read(logits.fine, places), part)
  at_part = lambda values: jnp.take_along_axis(read(values, places), part[..., None], -1)[..., 0]
  wanted = jnp.where(counted[..., None], own.uv, 0.0)
  u, v = at_part(logits.u) - wanted[..., 0], at_part(logits.v) - wanted[..., 1]
  on_body = counted & (part > 0)
  segments = jax.vmap(crop_segments, (0, 0, 0, None))(own.segments, frames, rois.boxes, size)
  segments = jnp.minimum(segments, logits.coarse.shape[-1] - 1)
  coarse = optax.softmax_cross_entropy_with_integer_labels(logits.coarse, segments)
  return DenseTerms(
    _sum(coarse.sum((1, 2)), rois.valid),
    rois.valid.sum(dtype=jnp.float32) * size**2,
    _sum(fine, counted),
    _sum(smooth_l1(u, 1.0) + smooth_l1(v, 1.0), on_body),
    counted.sum(dtype=jnp.float32),
  )


def dense_losses(terms: DenseTerms, *, images_summed: int = 2) -> dict[str, jax.Array]:
  """The weighted losses of a batch: "coarse", "fine" and "uv", f32[]; exactly 0 without annotated points.

  The coarse and fine ones are means over all pixels and points. That of U and V is a sum over each
  `images_summed` images, averaged.

  Args:
    terms: with a leading axis B.
  """
  mean = lambda totals, counts: totals.sum() / jnp.maximum(counts.sum(), 1.0)
  return {
    "coarse": COARSE_WEIGHT * mean(terms.coarse, terms.pixels),
    "fine": FINE_WEIGHT * mean(terms.fine, terms.points),
    "uv": UV_WEIGHT * images_summed * terms.uv.mean(),
  }


def sample_bilinear(values: jax.Array, places: jax.Array) -> jax.Array:
  """f32[P, C]: an array f32[H, W, C] at (x, y) f32[P, 2], pixels lying at integers; clamped at the border."""
  limits = jnp.array([values.shape[1] - 1, values.shape[0] - 1], jnp.float32)
  places = places.clip(0.0, limits[None])
  low = jnp.minimum(places.astype(jnp.int32), jnp.maximum(limits.astype(jnp.int32) - 1, 0)[None])
  upper = places - low.astype(jnp.float32)
  high = jnp.minimum(low + 1, limits.astype(jnp.int32)[None])
  found = jnp.zeros((), values.dtype)
  for column, across in ((low[:, 0], 1 - upper[:, 0]), (high[:, 0], upper[:, 0])):
    for row, down in ((low[:, 1], 1 - upper[:, 1]), (high[:, 1], upper[:, 1])):
      found += values[row, column] * (across * down)[:, None]
  return found


def crop_segments(segments: jax.Array, frame: jax.Array, box: jax.Array, size: int) -> jax.Array:
  """i32[size, size]: the labels in a box, of the nearest pixel; 0 outside of their frame.

  Args:
    segments: integers [S', S'], labels that cover the frame f32[4].
    box: f32[4] pixels.
  """
  index, inside = [], []
  for axis in (1, 0):
    centres = box[axis] + (jnp.arange(size, dtype=jnp.float32) + 0.5) * ((box[axis + 2] - box[axis]) / size)
    side = frame[axis + 2] - frame[axis]
    extent = segments.shape[1 - axis]
    place = jnp.floor((centres - frame[axis]) / jnp.where(side > 0, side, 1.0) * extent)
    inside.append((place >= 0) & (place < extent))
    index.append(place.clip(0, extent - 1).astype(jnp.int32))
  found = segments[index[0]][:, index[1]].astype(jnp.int32)
  return jnp.where(inside[0][:, None] & inside[1][None], found, 0)


def _in_rois(points: jax.Array, frames: jax.Array, rois: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(Points f32[D, P, 2] of the frames f32[D, 4], in [0, 1] of the RoIs f32[D, 4]; bool[D, P]: inside)."""
  sides = lambda boxes: boxes[:, None, 2:] - boxes[:, None, :2]
  pixels = frames[:, None, :2] + points * sides(frames)
  extent = sides(rois)
  places = (pixels - rois[:, None, :2]) / jnp.where(extent > 0, extent, 1.0)
  return places, ((places >= 0) & (places < 1)).all(-1)


def _sum(values: jax.Array, counted: jax.Array) -> jax.Array:
  return jnp.where(counted, values, 0.0).sum()
