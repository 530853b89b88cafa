"""Which ground truth a box belongs to: the labels of anchors and of proposals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.detect.boxes import check_float32, covered_fraction, in_tiles, iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
  """For each box the ground truth that it overlaps most, and what that makes of it."""

  index: jax.Array  # i32[N], a row of the ground truth; meaningless where `label` is not POSITIVE
  label: jax.Array  # i32[N]: POSITIVE, NEGATIVE or IGNORED
  iou: jax.Array  # f32[N] with that ground truth; 0 if there is none


@jax.named_scope("match")
def match(
  boxes: jax.Array,
  truth: jax.Array,
  truth_valid: jax.Array,
  *,
  low: float,
  high: float,
  low_quality: bool = False,
  boxes_valid: jax.Array | None = None,
  crowds: jax.Array | None = None,
  largest_crowd_fraction: float = 0.7,
  tile: int = 16_384,
) -> Matches:
  """Labels boxes by their largest IoU with a ground truth: POSITIVE from `high`, NEGATIVE below `low`.

  RPN: low 0.3, high 0.7, low_quality. RoI heads: low = high = 0.5. Overlaps are computed for `tile` boxes at
  a time, because the matrix of 100 x 261,888 overlaps takes 105 MB an image.

  Args:
    boxes: f32[N, 4] pixels, anchors or proposals.
    truth: f32[G, 4] pixels.
    truth_valid: bool[G]; other rows are padding and match nothing.
    low_quality: also makes POSITIVE, for every ground truth, all boxes that attain its largest IoU (if that
      is above 0). The ground truth of such a box stays the one that it overlaps most.
    boxes_valid: bool[N]; other rows become IGNORED and attain nothing.
    crowds: bool[G], ground truth that encloses a crowd: it matches nothing, and NEGATIVE boxes of which more
      than `largest_crowd_fraction` lies in one crowd become IGNORED. By default no row is a crowd; to
      disregard crowds as detectron2 does, make them invalid.
    tile: number of boxes that are compared at a time.
  Returns: `Matches` of N rows. Without valid ground truth all valid boxes are NEGATIVE.
  Raises: ValueError for boxes that are not float32 or thresholds out of order.
  Source: Ren et al. 2015, section 3.1.2; the crowds as in Detectron's filter of proposals.
  """
  check_float32(boxes=boxes, truth=truth)
  if not 0 < low <= high <= 1:
    raise ValueError(f"the thresholds of the matcher are low={low}, high={high}; use 0 < low <= high <= 1")
  boxes, truth = lax.stop_gradient((boxes, truth))
  total = boxes.shape[0]
  boxes_valid = jnp.ones(total, bool) if boxes_valid is None else boxes_valid
  crowds = jnp.zeros(truth.shape[0], bool) if crowds is None else crowds & truth_valid
  tiles = tuple(in_tiles(rows, min(tile, total)) for rows in (boxes, boxes_valid))
  found = _overlaps(tiles, truth, truth_valid & ~crowds, crowds, 2 if low_quality else 1)
  index, largest, attains, in_crowd = (rows.reshape(-1)[:total] for rows in found)
  label = jnp.where(largest >= high, POSITIVE, jnp.where(largest < low, NEGATIVE, IGNORED))
  label = jnp.where(attains, POSITIVE, label) if low_quality else label
  label = jnp.where((label == NEGATIVE) & (in_crowd > largest_crowd_fraction), IGNORED, label)
  return Matches(index, jnp.where(boxes_valid, label, IGNORED), largest)


def _overlaps(tiles, truth, matchable, crowds, rounds: int):
  """(Index, largest IoU, whether a ground truth's largest IoU is attained, fraction in a crowd), [n, T] each.

  The largest IoU of a ground truth is known after all tiles. The second round repeats the same program, so
  that its overlaps have the same bits and the comparison for equality is sound.
  """

  def compare(largest_of_truth, rows):
    boxes, valid = rows
    overlaps = jnp.where(matchable[:, None] & valid[None], iou(truth, boxes), 0.0)
    largest_of_truth = jnp.maximum(largest_of_truth, overlaps.max(1))
    attains = ((overlaps == largest_of_truth[:, None]) & (overlaps > 0)).any(0)
    in_crowd = jnp.where(crowds[None], covered_fraction(boxes, truth), 0.0).max(1)
    found = (overlaps.argmax(0).astype(jnp.int32), overlaps.max(0), attains, in_crowd)
    return largest_of_truth, found

  def go_through(_, state):
    return lax.scan(compare, state[0], tiles)

  kinds = (jnp.int32, jnp.float32, bool, jnp.float32)
  empty = tuple(jnp.zeros(tiles[1].shape, kind) for kind in kinds)
  return lax.fori_loop(0, rounds, go_through, (jnp.zeros(truth.shape[0]), empty))[1]
