"""Boxes: hand values, a numpy loop and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect import boxes
from tests.detect.programs import numpy_iou, random_boxes

SOURCE, TARGET = jnp.array([10.0, 20, 50, 100]), jnp.array([12.0, 18, 62, 98])


def same(actual, wanted, tolerance=1e-6):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=tolerance, atol=tolerance)


def test_overlaps_are_those_of_a_loop():
  first, second = random_boxes(0, 70), random_boxes(1, 90)
  same(jax.jit(boxes.iou)(first, second), numpy_iou(first, second))
  same(jnp.diag(boxes.iou(jnp.array(first), jnp.array(first))), np.ones(70))


def test_overlaps_are_torchvisions():
  ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  first, second = random_boxes(2, 50), random_boxes(3, 60)
  same(boxes.iou(jnp.array(first), jnp.array(second)), ops.box_iou(*map(torch.from_numpy, (first, second))))
  same(boxes.area(jnp.array(first)), ops.box_area(torch.from_numpy(first)))


def test_empty_boxes_overlap_with_nothing():
  odd = jnp.array([[0.0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 4, 4], [0, 0, 10, 10]])
  same(boxes.iou(odd, odd), np.diag([0, 0, 0, 1.0]))
  same(boxes.area(odd), [0, 0, 0, 100])
  same(boxes.covered_fraction(odd, odd), np.diag([0, 0, 0, 1.0]))


def test_the_covered_fraction_is_of_the_first_box():
  small, large = jnp.array([[0.0, 0, 2, 2]]), jnp.array([[1.0, 0, 100, 100]])
  same(boxes.covered_fraction(small, large), [[0.5]])


def test_deltas_of_the_specification():
  same(boxes.encode(TARGET, SOURCE), [0.175, -0.025, 0.223144, 0])
  same(boxes.encode(TARGET, SOURCE, boxes.ROI_WEIGHTS), [1.75, -0.25, 1.115718, 0])


@pytest.mark.parametrize("weights", [boxes.RPN_WEIGHTS, boxes.ROI_WEIGHTS])
def test_decoding_undoes_encoding(weights):
  targets, sources = random_boxes(4, 200), random_boxes(5, 200)
  targets[:, 2:] += 1
  sources[:, 2:] += 1
  moved = jax.jit(boxes.decode, static_argnums=2)(boxes.encode(targets, sources, weights), sources, weights)
  np.testing.assert_allclose(moved, targets, rtol=1e-5, atol=1e-3)


def test_scales_are_bounded_after_the_weights():
  assert boxes.LARGEST_LOG_SCALE == pytest.approx(4.135167, abs=1e-6)
  for weights in (boxes.RPN_WEIGHTS, boxes.ROI_WEIGHTS):
    deltas = jnp.array([[0.0, 0, 50 * weights[2], 4.2 * weights[3]]])
    x1, y1, x2, y2 = boxes.decode(deltas, jnp.array([[0.0, 0, 16, 32]]), weights)[0]
    same([x2 - x1, y2 - y1], [1000, 2000], 1e-5)


def test_deltas_of_classes_broadcast():
  deltas = jax.random.normal(jax.random.key(0), (7, 3, 4))
  sources = jnp.array(random_boxes(6, 7))
  found = boxes.decode(deltas, sources[:, None])
  for c in range(3):
    same(found[:, c], boxes.decode(deltas[:, c], sources), 1e-4)


def test_padded_boxes_give_finite_deltas_and_gradients():
  zeros = jnp.zeros((1, 4))
  assert np.isfinite(boxes.encode(zeros, zeros)).all()
  gradient = jax.grad(lambda source: boxes.encode(zeros, source).sum())(zeros)
  assert np.isfinite(gradient).all()


def test_clipping_and_mirroring():
  wild = jnp.array([[-5.0, 3, 30, 50], [12, -1, 14, 9]])
  same(boxes.clip(wild, jnp.array([40, 20])), [[0, 3, 20, 40], [12, 0, 14, 9]])
  same(boxes.mirror(wild, 20), [[-10, 3, 25, 50], [6, -1, 8, 9]])
  same(boxes.mirror(boxes.mirror(wild, 20), 20), wild)
  same(jax.vmap(boxes.clip)(wild, jnp.array([[40, 20], [5, 13]])), [[0, 3, 20, 40], [12, 0, 13, 5]])


def test_larger_boxes():
  found = boxes.is_larger(jnp.array([[0, 0, 2.0, 2], [0, 0, 2, 0], [0, 0, jnp.nan, 3], [0, 0, 1, 5]]), 1.0)
  assert found.tolist() == [True, False, False, False]


def test_tiles_are_padded_with_zeros():
  tiles = boxes.in_tiles(jnp.arange(1, 6), 3)
  assert tiles.tolist() == [[1, 2, 3], [4, 5, 0]]
  assert boxes.in_tiles(jnp.ones((4, 2), bool), 4).shape == (1, 4, 2)


def test_other_types_are_refused():
  with pytest.raises(ValueError, match="targets has type bfloat16; use float32"):
    boxes.encode(TARGET.astype(jnp.bfloat16), SOURCE)
