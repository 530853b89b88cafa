"""Losses of a detector: values computed by hand, and what must not enter them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect import losses
from ssl_jax.detect.boxes import ROI_WEIGHTS, encode
from ssl_jax.detect.losses import Truth
from ssl_jax.detect.proposals import Rois

TRUTH = Truth(
  boxes=jnp.array([[np.nan] * 4, [10.0, 10, 30, 30]]),
  classes=jnp.array([77, 1]),
  valid=jnp.array([False, True]),
  crowds=jnp.zeros(2, bool),
)
ROIS = Rois(  # foreground with IoU 20 / 26, background, padding
  boxes=jnp.array([[10.0, 10, 30, 36], [50, 50, 60, 60], [0, 0, 0, 0]]),
  truth=jnp.array([1, 0, 0]),
  foreground=jnp.array([True, False, False]),
  valid=jnp.array([True, True, False]),
)


@pytest.mark.parametrize("beta, expected", [(0.0, [0, 0.05, 2.0]), (0.1, [0, 0.0125, 1.95])])
def test_smooth_l1(beta, expected):
  np.testing.assert_allclose(losses.smooth_l1(jnp.array([0.0, 0.05, -2.0]), beta), expected, rtol=1e-6)


def test_rpn_counts_positives_for_boxes_and_the_sample_for_objectness():
  anchors = jnp.array([[10.0, 10, 30, 30], [100, 100, 120, 120], [15, 10, 35, 30]])  # IoU 1, 0, 0.6
  logits = jnp.log(jnp.array([3.0, 1.0, 9.0]))
  deltas = jnp.full((3, 4), 0.25)
  terms = losses.rpn_loss(jax.random.key(0), logits, deltas, anchors, TRUTH, count=4)
  np.testing.assert_allclose(terms.labels, np.log(4 / 3) + np.log(2), rtol=1e-6)
  np.testing.assert_allclose(terms.boxes, 1.0, rtol=1e-6)
  assert terms.count == 2
  one = losses.rpn_loss(jax.random.key(0), logits, deltas, anchors, TRUTH, count=1)
  assert one.count == 1 and one.boxes == 0  # half of 1 is no positive


def test_crowds_are_left_out_of_the_negatives():
  anchors = jnp.array([[10.0, 10, 30, 30], [100, 100, 120, 120]])
  crowd = TRUTH._replace(
    boxes=jnp.array([[10.0, 10, 30, 30], [90, 90, 130, 130]]),
    valid=jnp.ones(2, bool),
    crowds=jnp.array([False, True]),
  )
  terms = losses.rpn_loss(jax.random.key(0), jnp.zeros(2), jnp.zeros((2, 4)), anchors, crowd)
  assert terms.count == 1


@pytest.mark.parametrize("shared", [False, True])
def test_heads_learn_the_deltas_of_the_class_and_the_background_as_the_last_class(shared):
  logits = jnp.log(jnp.array([[1.0, 2, 1], [1, 1, 2], [5, 1, 1]]))
  target = encode(TRUTH.boxes[1], ROIS.boxes[0], ROI_WEIGHTS)
  deltas = jnp.full((3, 2, 4), 50.0).at[0, 1].set(target + 0.5)
  deltas = deltas[:, 1:] if shared else deltas
  terms = losses.roi_loss(logits, deltas, ROIS, TRUTH)
  np.testing.assert_allclose(terms.labels, 2 * np.log(2), rtol=1e-6)
  np.testing.assert_allclose(terms.boxes, 2.0, rtol=1e-5)
  assert terms.count == 2


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_no_gradient_of_padding_is_nan(beta):
  def loss(deltas, logits):
    rpn = losses.rpn_loss(jax.random.key(0), logits[:, 0], deltas[:, 0], ROIS.boxes, TRUTH, beta=beta)
    roi = losses.roi_loss(logits, deltas, ROIS, TRUTH, beta=beta)
    return rpn.labels + rpn.boxes + roi.labels + roi.boxes

  gradients = jax.grad(loss, (0, 1))(jnp.ones((3, 2, 4)), jnp.ones((3, 3)))
  assert all(np.isfinite(leaf).all() for leaf in gradients)


def test_masks_are_cut_by_the_roi_and_compared_with_the_true_class():
  masks = jnp.zeros((2, 64, 64), bool).at[1, 10:30, 10:20].set(True)  # the left half of the object
  logits = jnp.full((2, 4, 4, 2), -5.0).at[0, :3, :2, 1].set(5.0)  # its box ends before the last row
  total, count = losses.mask_loss(logits, ROIS, TRUTH, masks)
  assert count == 16
  np.testing.assert_allclose(total, 16 * np.log1p(np.exp(-5)), rtol=1e-5)
  frames = jnp.array([[0.0, 0, 0, 0], [10, 10, 30, 30]])
  framed = losses.mask_loss(logits, ROIS, TRUTH, masks[:, 10:30, 10:30], frames)[0]
  np.testing.assert_allclose(framed, total, rtol=1e-5)
