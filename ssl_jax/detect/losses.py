"""Losses of a detector for one image, as sums and counts: the caller adds up a batch and divides once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.core import Key
from ssl_jax.detect.boxes import ROI_WEIGHTS, RPN_WEIGHTS, encode
from ssl_jax.detect.masks import crop_masks
from ssl_jax.detect.matcher import match
from ssl_jax.detect.proposals import Rois
from ssl_jax.detect.sampler import random_sample
from ssl_jax.losses import cross_entropy


class Truth(NamedTuple):
  """The objects of an image; rows that are not valid are padding."""

  boxes: jax.Array  # f32[G, 4] pixels
  classes: jax.Array  # i32[G] in [0, K)
  valid: jax.Array  # bool[G]
  crowds: jax.Array  # bool[G]: encloses many objects; see `matcher.match`


class Terms(NamedTuple):
  """Two sums over the boxes that an image contributes to the loss, and their number."""

  labels: jax.Array  # f32[], nats: of objectness or of classes
  boxes: jax.Array  # f32[], of the deltas of positives
  count: jax.Array  # f32[]


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
  """|d| - beta / 2 where |d| >= beta, d^2 / (2 beta) nearer to 0; |d| for beta 0. Girshick 2015, eq. 3."""
  return optax.huber_loss(difference, delta=beta) / beta if beta else jnp.abs(difference)


def rpn_loss(
  key: Key,
  logits: jax.Array,
  deltas: jax.Array,
  anchors: jax.Array,
  truth: Truth,
  *,
  count: int = 256,
  positive_fraction: float = 0.5,
  low: float = 0.3,
  high: float = 0.7,
  beta: float = 0.0,
) -> Terms:
  """The loss of a region proposal network on a random sample of the anchors of all levels.

  Args:
    logits: f32[N] of objectness.
    deltas: f32[N, 4].
    anchors: f32[N, 4] pixels.
    count, positive_fraction: of the sample, see `sampler.random_sample`.
    low, high: IoU below which an anchor is negative, and from which it is positive.
    beta: of `smooth_l1`; 0 in detectron2, 1/9 in torchvision.
  Source: Ren et al. 2015, section 3.1.2 and 3.1.3.
  """
  matches = match(
    anchors, truth.boxes, truth.valid, low=low, high=high, low_quality=True, crowds=truth.crowds
  )
  sample = random_sample(key, matches.label, count=count, most_positives=int(count * positive_fraction))
  rows = sample.index
  objectness = optax.sigmoid_binary_cross_entropy(logits[rows], sample.positive.astype(jnp.float32))
  target = encode(truth.boxes[matches.index[rows]], anchors[rows], RPN_WEIGHTS)
  return Terms(
    _sum(objectness, sample.valid),
    _box_loss(deltas[rows], target, sample.positive, beta),
    sample.valid.sum(dtype=jnp.float32),
  )


def roi_labels(rois: Rois, truth: Truth, classes: int) -> jax.Array:
  """i32[S]: the class of each RoI; K = `classes` for the background."""
  return jnp.where(rois.foreground, truth.classes[rois.truth].astype(jnp.int32), classes)


def roi_loss(logits: jax.Array, deltas: jax.Array, rois: Rois, truth: Truth, *, beta: float = 0.0) -> Terms:
  """The loss of a box head: cross-entropy of all RoIs, and the deltas of the class of foreground RoIs.

  Args:
    logits: f32[S, K + 1]; the last class is the background.
    deltas: f32[S, K, 4], or [S, 1, 4] for a box that all classes share.
    beta: of `smooth_l1`.
  Source: Girshick 2015 (Fast R-CNN), section 2.3; both are divided by the number of RoIs, as in detectron2.
  """
  labels = roi_labels(rois, truth, logits.shape[1] - 1)
  column = jnp.minimum(labels, deltas.shape[1] - 1)
  own = jnp.take_along_axis(deltas, column[:, None, None], axis=1)[:, 0]
  target = encode(truth.boxes[rois.truth], rois.boxes, ROI_WEIGHTS)
  return Terms(
    _sum(cross_entropy(logits, labels), rois.valid),
    _box_loss(own, target, rois.foreground, beta),
    rois.valid.sum(dtype=jnp.float32),
  )


def mask_loss(
  logits: jax.Array, rois: Rois, truth: Truth, masks: jax.Array, frames: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """The cross-entropy of the mask of the true class: (its sum over the pixels of the foreground RoIs f32[],
  their number f32[]).

  Args:
    logits: f32[F, P, P, K], of the first F of the RoIs, among which all foreground ones are.
    masks: bool[G, h, w] of the truth; frames: f32[G, 4] pixels, what they cover, see `masks.crop_masks`.
  Source: He et al. 2017 (Mask R-CNN), section 3.
  """
  count, size = logits.shape[0], logits.shape[1]
  first = jax.tree.map(lambda rows: rows[:count], rois)
  column = jnp.where(first.foreground, truth.classes[first.truth].astype(jnp.int32), 0)
  own = jnp.take_along_axis(logits, column[:, None, None, None], axis=-1)[..., 0]
  target = crop_masks(masks, first.truth, first.boxes, size=size, frames=frames)
  values = optax.sigmoid_binary_cross_entropy(own, target.astype(jnp.float32))
  return _sum(values.sum((1, 2)), first.foreground), first.foreground.sum(dtype=jnp.float32) * size**2


def _box_loss(deltas: jax.Array, target: jax.Array, positive: jax.Array, beta: float) -> jax.Array:
  # Zeros, because the target of a box that is not positive may come from padding and be NaN.
  target = jnp.where(positive[:, None], target, 0.0)
  return _sum(smooth_l1(deltas - target, beta).sum(-1), positive)


def _sum(values: jax.Array, counted: jax.Array) -> jax.Array:
  return jnp.where(counted, values, 0.0).sum()
