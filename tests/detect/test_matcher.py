"""The matcher equals a loop that follows its definition, for any tile; padding and crowds match nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.anchors import FPN, pyramid_anchors
from ssl_jax.detect.matcher import IGNORED, NEGATIVE, POSITIVE, match
from tests.detect.programs import GIGABYTE, largest_array, numpy_iou, random_boxes, shape

RPN = {"low": 0.3, "high": 0.7, "low_quality": True}
ROI = {"low": 0.5, "high": 0.5}


@functools.cache
def compiled(tile: int = 16_384, **options):
  return jax.jit(functools.partial(match, tile=tile, **options))


def scene(count: int, objects: int):
  """Whole boxes, some of them equal, and ground truth that lies near some of them."""
  boxes = random_boxes(0, count, 200, whole=True)
  boxes[20:30], boxes[300:310] = boxes[:10], boxes[:10]
  return boxes, boxes[:: count // objects][:objects] + np.array([0, 1, 3, 2], np.float32)


def by_definition(boxes, truth, low, high, low_quality=False):
  overlaps = numpy_iou(truth, boxes)
  largest = overlaps.max(0)
  labels = np.where(largest >= np.float32(high), 1, np.where(largest < np.float32(low), 0, -1))
  if low_quality:
    for row in overlaps:
      if row.max() > 0:
        labels[row == row.max()] = 1
  return overlaps.argmax(0), labels


@pytest.mark.parametrize("options", [RPN, ROI])
@pytest.mark.parametrize("tile", [37, 16_384])
def test_labels_are_those_of_the_definition(options, tile):
  boxes, truth = scene(700, 12)
  index, labels = by_definition(boxes, truth, **options)
  found = compiled(tile, **options)(boxes, truth, np.ones(12, bool))
  np.testing.assert_array_equal(found.label, labels)
  np.testing.assert_array_equal(found.index[labels == 1], index[labels == 1])
  assert (labels == 1).sum() > 20 and (labels == 0).sum() > 20


def test_every_ground_truth_gets_an_anchor():
  """Also one that overlaps at most a quarter with every anchor, and with all ties."""
  boxes = jnp.array([[0.0, 0, 10, 10], [10, 0, 20, 10], [50, 50, 60, 60]])
  truth = jnp.array([[5.0, 0, 15, 4]])  # shares 20 of 120 pixels with each of the first two
  found = compiled(**RPN)(boxes, truth, jnp.array([True]))
  assert found.label.tolist() == [POSITIVE, POSITIVE, NEGATIVE]
  without = compiled(low=0.3, high=0.7)(boxes, truth, jnp.array([True]))
  assert without.label.tolist() == [NEGATIVE] * 3


def test_the_target_of_a_low_quality_match_is_what_it_overlaps_most():
  boxes = jnp.array([[0.0, 0, 10, 10]])
  truth = jnp.array([[0.0, 0, 10, 2], [0, 0, 10, 5]])
  found = compiled(**RPN)(boxes, truth, jnp.array([True, True]))
  assert found.label.tolist() == [POSITIVE] and found.index.tolist() == [1]


def test_ground_truth_far_from_all_anchors_makes_none_positive():
  boxes = jnp.array([[0.0, 0, 10, 10], [20, 0, 30, 10]])
  found = compiled(**RPN)(boxes, jnp.array([[500.0, 500, 510, 510]]), jnp.array([True]))
  assert found.label.tolist() == [NEGATIVE] * 2


@pytest.mark.parametrize("options", [RPN, ROI])
def test_padding_changes_nothing(options):
  boxes, truth = random_boxes(2, 300, 200), random_boxes(3, 6, 200)
  plain = compiled(**options)(boxes, truth, np.ones(6, bool))
  padded = np.concatenate([boxes[:3], truth, np.zeros((4, 4), np.float32)])  # rows that would match if valid
  found = compiled(**options)(boxes, padded, np.r_[[False] * 3, [True] * 6, [False] * 4])
  np.testing.assert_array_equal(found.label, plain.label)
  positive = np.asarray(plain.label) == POSITIVE
  np.testing.assert_array_equal(found.index[positive] - 3, plain.index[positive])
  assert (compiled(**options)(boxes, padded, np.zeros(13, bool)).label == NEGATIVE).all()


def test_boxes_that_are_padding_are_ignored_and_attain_nothing():
  boxes, truth = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 4]]), jnp.array([[0.0, 0, 10, 10]])
  found = compiled(**RPN)(boxes, truth, jnp.array([True]), boxes_valid=jnp.array([False, True]))
  assert found.label.tolist() == [IGNORED, POSITIVE]


def test_crowds_match_nothing_and_hide_what_lies_in_them():
  boxes = jnp.array([[0.0, 0, 10, 10], [90, 0, 110, 10], [300, 0, 310, 10], [0, 0, 100, 100]])
  truth = jnp.array([[0.0, 0, 100, 100], [0, 0, 10, 10]])
  crowds = jnp.array([True, False])
  found = compiled(**RPN)(boxes, truth, jnp.array([True, True]), crowds=crowds)
  assert found.label.tolist() == [POSITIVE, NEGATIVE, NEGATIVE, IGNORED]
  found = compiled(**RPN)(boxes, truth, jnp.array([False, True]), crowds=crowds)  # a padded crowd
  assert found.label.tolist() == [POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE]


def test_torchvisions_matcher():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  detection = pytest.importorskip(
    "torchvision.models.detection._utils", reason="torchvision is not installed"
  )
  boxes, truth = scene(2000, 20)
  overlaps = torch.from_numpy(numpy_iou(truth, boxes))
  wanted = detection.Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps).numpy()
  found = compiled(**RPN)(boxes, truth, np.ones(20, bool))
  np.testing.assert_array_equal(found.label, np.where(wanted >= 0, 1, np.where(wanted == -1, 0, -1)))
  np.testing.assert_array_equal(found.index[wanted >= 0], wanted[wanted >= 0])


def test_images_of_a_batch_are_independent():
  boxes = np.stack([random_boxes(seed, 200, 200) for seed in (6, 7)])
  truth = np.stack([random_boxes(seed, 5, 200) for seed in (8, 9)])
  valid = np.array([[True] * 5, [True, True, False, False, False]])
  found = jax.vmap(compiled(64, **RPN))(boxes, truth, valid)
  for i in range(2):
    alone = compiled(64, **RPN)(boxes[i], truth[i], valid[i])
    np.testing.assert_array_equal(found.label[i], alone.label)


def test_memory_of_a_batch_of_sixteen_images_of_1024_pixels():
  def labels(truth, valid):
    anchors = jnp.concatenate(pyramid_anchors(1024, 1024, FPN))
    return jax.vmap(lambda truth, valid: match(anchors, truth, valid, **RPN))(truth, valid)

  arguments = shape(16, 100, 4), shape(16, 100, dtype=bool)
  assert largest_array(labels, *arguments) < GIGABYTE / 4


def test_thresholds_out_of_order_are_refused():
  with pytest.raises(ValueError, match="low=0.7, high=0.3; use 0 < low <= high <= 1"):
    match(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.ones(1, bool), low=0.7, high=0.3)
