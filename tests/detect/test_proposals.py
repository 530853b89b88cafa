"""Proposals equal the steps done one by one in numpy, and torchvision's; the counts of RoIs are kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect import boxes as box
from ssl_jax.detect.anchors import C4, FPN, pyramid_anchors
from ssl_jax.detect.proposals import random_rois, select_proposals
from tests.detect.programs import GIGABYTE, greedy, largest_array, numpy_iou, random_boxes, shape

SIZE = jnp.array([150, 200])


def levels(seed: int, *counts: int):
  """(Logits with ties, deltas of zero, anchors with whole corners) of an RPN: its boxes are its anchors."""
  random = np.random.default_rng(seed)
  logits = [(random.integers(-40, 40, n) / 8).astype(np.float32) for n in counts]
  anchors = [random_boxes(seed + i, n, 220, whole=True) for i, n in enumerate(counts)]
  return logits, [np.zeros((n, 4), np.float32) for n in counts], anchors


def by_definition(logits, anchors, before, count, threshold):
  found = []
  for level, (scores, boxes) in enumerate(zip(logits, anchors)):
    best = np.argsort(-scores, kind="stable")[:before]
    scores, boxes = scores[best], boxes[best].clip(0, [200, 150, 200, 150])
    real = (boxes[:, 2:] > boxes[:, :2]).all(1)
    scores, boxes = scores[real], boxes[real]
    kept = greedy(boxes, scores, threshold)
    found += [(-scores[i], level, rank, boxes[i]) for rank, i in enumerate(kept)]
  found = sorted(found, key=lambda row: row[:3])[:count]
  return np.array([row[3] for row in found]), np.array([-row[0] for row in found])


@pytest.mark.parametrize("before, count", [(100, 60), (100, 1000), (10_000, 50)])
def test_the_steps_one_after_the_other(before, count):
  logits, deltas, anchors = levels(0, 400, 120, 30)
  run = jax.jit(functools.partial(select_proposals, before=before, count=count))
  found = run(logits, deltas, anchors, SIZE)
  boxes, scores = by_definition(logits, anchors, before, count, 0.7)
  valid = np.asarray(found.valid)
  assert valid.shape == (count,) and valid.sum() == len(boxes) and valid[: len(boxes)].all()
  np.testing.assert_array_equal(found.boxes[valid], boxes)
  np.testing.assert_array_equal(found.scores[valid], scores)
  assert not np.asarray(found.boxes)[~valid].any() and not np.asarray(found.scores)[~valid].any()


def test_torchvisions_proposals():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  rpn = pytest.importorskip("torchvision.models.detection.rpn", reason="torchvision is not installed")
  logits, deltas, anchors = levels(1, 300, 100)
  logits = [
    np.random.default_rng(i).permutation(len(row)).astype(np.float32) / 99 + i / 1000
    for i, row in enumerate(logits)
  ]
  top = {"training": 80, "testing": 80}
  network = rpn.RegionProposalNetwork(
    None, None, 0.7, 0.3, 256, 0.5, top, {"training": 70, "testing": 70}, 0.7
  ).eval()
  boxes = torch.from_numpy(np.concatenate(anchors))[None]
  scores = torch.from_numpy(np.concatenate(logits))[None]
  wanted, _ = network.filter_proposals(boxes, scores, [(150, 200)], [300, 100])
  found = jax.jit(functools.partial(select_proposals, before=80, count=70))(logits, deltas, anchors, SIZE)
  np.testing.assert_array_equal(found.boxes[found.valid], wanted[0])


def test_deltas_move_the_anchors_before_the_suppression():
  targets = random_boxes(2, 4, 150) + np.array([0, 0, 9, 9], np.float32)
  anchors = np.tile(np.array([[10, 10, 90, 60]], np.float32), (4, 1))
  deltas = box.encode(jnp.array(targets), jnp.array(anchors))
  found = select_proposals([jnp.arange(4.0)], [deltas], [jnp.array(anchors)], SIZE, count=4, threshold=0.99)
  np.testing.assert_allclose(found.boxes, box.clip(targets[::-1], SIZE), atol=1e-3)


def test_what_is_not_finite_small_or_outside_is_dropped():
  anchors = np.array(
    [[0, 0, 9, 9], [20, 0, 29, 9], [300, 300, 310, 310], [40, 0, 43, 9], [60, 0, 69, 9]], np.float32
  )
  logits = np.array([np.nan, 1, 2, 3, 4], np.float32)
  deltas = np.zeros((5, 4), np.float32)
  deltas[4, 2] = np.nan
  found = select_proposals([logits], [deltas], [anchors], SIZE, count=5, least_side=4.0)
  assert found.valid.tolist() == [True] + [False] * 4
  np.testing.assert_array_equal(found.boxes[0], anchors[1])


def test_batches_and_gradient():
  logits, deltas, anchors = levels(3, 60, 20)
  other, _, _ = levels(4, 60, 20)
  run = functools.partial(select_proposals, before=30, count=20)
  both = [np.stack(pair) for pair in zip(logits, other)]
  found = jax.jit(jax.vmap(lambda logits: run(logits, deltas, anchors, SIZE)))(both)
  np.testing.assert_array_equal(found.boxes[1], run(other, deltas, anchors, SIZE).boxes)
  total = lambda deltas: run(logits, deltas, anchors, SIZE).boxes.sum()
  assert not any(np.asarray(leaf).any() for leaf in jax.jit(jax.grad(total))(deltas))


@pytest.mark.parametrize("grids, before, count", [(FPN, 2000, 1000), (C4, 12_000, 2000)])
def test_memory_of_a_batch_of_eight(grids, before, count):
  def run(logits, deltas):
    anchors = pyramid_anchors(1024, 1024, grids)
    return jax.vmap(lambda a, b: select_proposals(a, b, anchors, SIZE, before=before, count=count))(
      logits, deltas
    )

  counts = [len(level) for level in jax.eval_shape(lambda: pyramid_anchors(1024, 1024, grids))]
  arguments = [shape(8, n) for n in counts], [shape(8, n, 4) for n in counts]
  assert largest_array(run, *arguments) < GIGABYTE / 10


def scene():
  truth = np.concatenate(
    [random_boxes(5, 6, 200) + np.array([0, 0, 5, 5], np.float32), np.zeros((4, 4), np.float32)]
  )
  near = np.repeat(truth[:6], 40, 0) + np.random.default_rng(6).uniform(-4, 4, (240, 4)).astype(np.float32)
  proposals = np.concatenate([near, random_boxes(7, 500, 200), np.tile(truth[:1], (60, 1))])
  return proposals, np.arange(800) < 740, truth, np.arange(10) < 6


def test_rois_follow_their_counts():
  proposals, valid, truth, truth_valid = scene()
  rois = jax.jit(functools.partial(random_rois, count=128))(
    jax.random.key(0), proposals, valid, truth, truth_valid
  )
  boxes, row, foreground, kept = map(np.asarray, rois)
  assert foreground.sum() == 32 and kept.all()
  overlaps = numpy_iou(boxes, truth[:6])
  assert (overlaps[foreground].max(1) >= 0.5).all() and (overlaps[~foreground].max(1) < 0.5).all()
  np.testing.assert_array_equal(row[foreground], overlaps[foreground].argmax(1))
  assert not row[~foreground].any()


def test_the_ground_truth_is_among_the_rois():
  proposals, _, truth, truth_valid = scene()
  rois = random_rois(jax.random.key(1), proposals, np.zeros(800, bool), truth, truth_valid, count=64)
  assert rois.foreground.sum() == 6 and rois.valid.sum() == 6
  assert {tuple(b) for b in np.asarray(rois.boxes[:6]).tolist()} == {tuple(b) for b in truth[:6].tolist()}
  assert not np.asarray(rois.boxes[6:]).any()
  crowds = np.arange(10) < 2
  rois = random_rois(
    jax.random.key(1), proposals, np.zeros(800, bool), truth, truth_valid, count=64, crowds=crowds
  )
  assert rois.foreground.sum() == 4 and set(rois.truth[:4].tolist()) == {2, 3, 4, 5}


def test_images_without_ground_truth_give_background_only():
  proposals, valid, truth, _ = scene()
  rois = random_rois(jax.random.key(2), proposals, valid, 0 * truth, np.zeros(10, bool), count=64)
  assert rois.foreground.sum() == 0 and rois.valid.all()


def test_levels_that_do_not_correspond_are_refused():
  with pytest.raises(ValueError, match="1 levels of logits, 2 of deltas and 1 of anchors; give one each"):
    select_proposals([jnp.zeros(3)], [jnp.zeros((3, 4))] * 2, [jnp.zeros((3, 4))], SIZE)
