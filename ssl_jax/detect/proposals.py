"""Proposals of a region proposal network, and the RoIs among them that train the heads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.core import Key
from ssl_jax.detect.boxes import RPN_WEIGHTS, Weights, check_float32, clip, decode, is_larger
from ssl_jax.detect.matcher import match
from ssl_jax.detect.nms import nms
from ssl_jax.detect.sampler import random_sample


class Proposals(NamedTuple):
  """Boxes by descending score; rows that are not valid are zero and come last."""

  boxes: jax.Array  # f32[N, 4] pixels, within the image
  scores: jax.Array  # f32[N], logits of objectness
  valid: jax.Array  # bool[N]


class Rois(NamedTuple):
  """The boxes that train the heads: first foreground, then background, then rows that are not valid."""

  boxes: jax.Array  # f32[S, 4] pixels
  truth: jax.Array  # i32[S], the row of the ground truth of foreground boxes; 0 elsewhere
  foreground: jax.Array  # bool[S]
  valid: jax.Array  # bool[S]


@jax.named_scope("select_proposals")
def select_proposals(
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  anchors: Sequence[jax.Array],
  image_size: jax.Array,
  *,
  before: int = 2000,
  count: int = 1000,
  threshold: float = 0.7,
  least_side: float = 0.0,
  weights: Weights = RPN_WEIGHTS,
) -> Proposals:
  """The boxes of an RPN: the best of each level, decoded, clipped, suppressed, then the best of all levels.

  FPN: before 2,000 (training) or 1,000 (test), count 1,000. C4: 12,000 and 2,000 (training), 6,000 and 1,000
  (test). No gradient passes.

  Args:
    logits: for each level f32[A_l], of objectness.
    deltas: for each level f32[A_l, 4], relative to the anchors.
    anchors: for each level f32[A_l, 4] pixels.
    image_size: [2], (height, width) of the part of the image that is not padding, pixels.
    before: boxes of each level that enter the suppression.
    count: N, boxes that leave.
    threshold: IoU above which a box is suppressed by a better one of its level.
    least_side: boxes are dropped unless both sides exceed it, in pixels. Boxes and logits that are not finite
      are dropped, too.
    weights: of the deltas.
  Returns: `Proposals` of N rows.
  Raises: ValueError for levels that do not correspond, or arrays that are not float32.
  Source: Ren et al. 2015, section 3.3; Lin et al. 2017 (FPN), section 4.1; the steps are detectron2's.
  """
  if not len(logits) == len(deltas) == len(anchors):
    raise ValueError(
      f"{len(logits)} levels of logits, {len(deltas)} of deltas and {len(anchors)} of anchors; give one each"
    )
  levels = lax.stop_gradient(list(zip(logits, deltas, anchors)))
  best = [_best(*level, image_size, before, least_side, weights) for level in levels]
  rows = max(level.scores.size for level in best)
  stacked = jax.tree.map(lambda *leaves: jnp.stack([_pad(leaf, rows) for leaf in leaves]), *best)
  kept = jax.vmap(functools.partial(nms, threshold=threshold, count=min(count, rows)))(*stacked)
  pick = jax.vmap(lambda level, index: jax.tree.map(lambda leaf: leaf[index], level))
  survivors = pick(stacked, kept.index)._replace(valid=kept.valid)
  return _top(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), survivors), count)


def _best(logits, deltas, anchors, image_size, before: int, least_side: float, weights: Weights) -> Proposals:
  """The `before` anchors of a level with the largest logits, decoded and clipped."""
  check_float32(logits=logits, anchors=anchors)
  scores, index = lax.top_k(jnp.where(jnp.isfinite(logits), logits, -jnp.inf), min(before, logits.size))
  decoded = decode(deltas[index], anchors[index], weights)
  boxes = clip(decoded, image_size)
  valid = jnp.isfinite(scores) & jnp.isfinite(decoded).all(-1) & is_larger(boxes, least_side)
  return Proposals(boxes, scores, valid)


def _pad(leaf: jax.Array, rows: int) -> jax.Array:
  return jnp.pad(leaf, [(0, rows - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))


def _top(found: Proposals, count: int) -> Proposals:
  """The `count` valid rows with the largest scores; those of earlier levels first where scores are equal."""
  index = jnp.argsort(jnp.where(found.valid, -found.scores, jnp.inf))[:count]
  valid = found.valid[index]
  boxes, scores = (
    jnp.where(valid[:, None], found.boxes[index], 0.0),
    jnp.where(valid, found.scores[index], 0.0),
  )
  return Proposals(*(_pad(leaf, count) for leaf in (boxes, scores, valid)))


def random_rois(
  key: Key,
  boxes: jax.Array,
  boxes_valid: jax.Array,
  truth: jax.Array,
  truth_valid: jax.Array,
  *,
  count: int = 512,
  foreground_fraction: float = 0.25,
  threshold: float = 0.5,
  crowds: jax.Array | None = None,
) -> Rois:
  """Draws the RoIs that train the heads, among the proposals and the boxes of the ground truth.

  Args:
    boxes: f32[N, 4] pixels, proposals; boxes_valid: bool[N].
    truth: f32[G, 4] pixels; truth_valid: bool[G]; crowds: bool[G], see `matcher.match`.
    count: S.
    foreground_fraction: largest fraction of the S that is foreground.
    threshold: a box is foreground if its largest IoU with the ground truth is at least that.
  Returns: `Rois` of S rows. Fewer are valid where foreground and background do not suffice.
  Raises: ValueError for boxes that are not float32 and for thresholds and fractions outside [0, 1].
  Source: Girshick 2015 (Fast R-CNN), section 2.3; the ground truth is added as in detectron2.
  """
  addable = truth_valid if crowds is None else truth_valid & ~crowds
  candidates = jnp.concatenate([boxes, truth])
  matches = match(
    candidates,
    truth,
    truth_valid,
    low=threshold,
    high=threshold,
    boxes_valid=jnp.concatenate([boxes_valid, addable]),
    crowds=crowds,
  )
  most = int(count * foreground_fraction)
  sample = random_sample(key, matches.label, count=count, most_positives=most)
  drawn = jnp.where(sample.valid[:, None], lax.stop_gradient(candidates)[sample.index], 0.0)
  row = jnp.where(sample.positive, matches.index[sample.index], 0)
  return Rois(drawn, row, sample.positive, sample.valid)
