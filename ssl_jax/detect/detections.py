"""The boxes that a detector reports for an image."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.detect.boxes import check_float32, clip, is_larger
from ssl_jax.detect.nms import nms


class Detections(NamedTuple):
  """Boxes by descending score; rows that are not valid are zero and come last."""

  boxes: jax.Array  # f32[N, 4] pixels, within the image
  scores: jax.Array  # f32[N], probabilities
  classes: jax.Array  # i32[N]
  roi: jax.Array  # i32[N]: the RoI that each box was computed from
  valid: jax.Array  # bool[N]


@jax.named_scope("select_detections")
def select_detections(
  probabilities: jax.Array,
  boxes: jax.Array,
  rois_valid: jax.Array,
  image_size: jax.Array,
  *,
  least_score: float = 0.05,
  least_side: float = 0.0,
  threshold: float = 0.5,
  count: int = 100,
  candidates: int = 2000,
) -> Detections:
  """The best boxes of all classes after suppression within each class. No gradient passes.

  Args:
    probabilities: f32[R, K + 1], the softmax of each RoI; the last column is the background.
    boxes: f32[R, K, 4] pixels, decoded for each class; [R, 1, 4] if all classes share a box.
    rois_valid: bool[R].
    image_size: [2], (height, width) of the part of the image that is not padding, pixels.
    least_score: a box must exceed it.
    least_side: both sides of a box must exceed it, pixels.
    threshold: IoU above which a box is suppressed by a better one of its class.
    count: N.
    candidates: pairs of RoI and class with the largest scores that enter the suppression. Where no more
      exceed `least_score`, the result is that of all pairs.
  Returns: `Detections` of N rows.
  Raises: ValueError for arrays that are not float32.
  Source: Girshick 2015 (Fast R-CNN), section 2.4; the values are detectron2's.
  """
  check_float32(probabilities=probabilities, boxes=boxes)
  probabilities, boxes = lax.stop_gradient((probabilities, clip(boxes, image_size)))
  rois, classes = probabilities.shape[0], probabilities.shape[1] - 1
  scores = probabilities[:, :-1]
  scores = jnp.where(rois_valid[:, None] & is_larger(boxes, least_side) & (scores > least_score), scores, 0.0)
  best, pair = lax.top_k(scores.reshape(-1), min(candidates, rois * classes))
  roi, label = pair // classes, (pair % classes).astype(jnp.int32)
  chosen = boxes[roi, jnp.minimum(label, boxes.shape[1] - 1)]
  kept = nms(chosen, best, best > 0, threshold=threshold, count=count, groups=label)
  take = lambda rows: jnp.where(kept.valid, rows[kept.index], 0)
  picked = jnp.where(kept.valid[:, None], chosen[kept.index], 0.0)
  return Detections(picked, take(best), take(label), take(roi), kept.valid)
