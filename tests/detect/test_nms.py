"""Suppression in tiles equals the greedy loop and torchvision, ties included; padding is never kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.nms import nms
from tests.detect.programs import GIGABYTE, greedy, largest_array, random_boxes, shape

MANY = 12_000


@functools.cache
def compiled(threshold: float, count: int, tile: int = 512):
  return jax.jit(functools.partial(nms, threshold=threshold, count=count, tile=tile))


def rows(kept):
  """The valid rows as a list; they come before the others, whose index is 0."""
  index, valid = map(np.asarray, kept)
  assert not index[~valid].any() and (np.diff(valid.astype(int)) <= 0).all()
  return index[valid].tolist()


def scores_with_ties(seed, count, levels=300):
  return (np.random.default_rng(seed).integers(0, levels, count) / levels).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_many_boxes_with_ties_are_those_of_the_greedy_loop(threshold):
  boxes, scores = random_boxes(0, MANY, whole=True), scores_with_ties(1, MANY)
  boxes[::7] = boxes[1::7][: len(boxes[::7])]  # equal boxes
  found = rows(compiled(threshold, MANY)(boxes, scores))
  assert found == greedy(boxes, scores, threshold)
  assert 500 < len(found) < 0.7 * MANY


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_many_boxes_are_torchvisions(threshold):
  ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  boxes, scores = random_boxes(2, MANY), scores_with_ties(3, MANY)
  wanted = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
  assert rows(compiled(threshold, MANY)(boxes, scores)) == wanted.tolist()


def test_an_overlap_equal_to_the_threshold_does_not_suppress():
  boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 7], [0, 0, 10, 8]])
  scores = jnp.array([4.0, 3, 2, 1])
  assert rows(compiled(0.5, 4)(boxes[:2], scores[:2])) == [0, 1]
  assert rows(compiled(0.7, 4)(boxes[:3], scores[:3])) == [0, 1]  # box 2 is 7/10 of box 0, 5/7 > 0.7 of box 1
  assert rows(compiled(0.7, 4)(boxes[jnp.array([0, 2])], scores[:2])) == [0, 1]
  assert rows(compiled(0.5, 4)(boxes, scores)) == [0, 1]


def test_chains_longer_than_a_tile():
  """Each box suppresses the next only: every second one survives, after as many rounds as there are boxes."""
  left = np.arange(100, dtype=np.float32) * 3
  boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], 1)
  found = compiled(0.5, 100, tile=16)(boxes, -left)
  assert rows(found) == list(range(0, 100, 2))


@pytest.mark.parametrize("tile", [1, 7, 64, 512])
def test_the_tile_changes_nothing(tile):
  boxes, scores = random_boxes(4, 150, whole=True), scores_with_ties(5, 150, 20)
  assert rows(compiled(0.5, 200, tile)(boxes, scores)) == greedy(boxes, scores, 0.5)


def test_padding_is_never_kept_and_suppresses_nothing():
  boxes, scores = random_boxes(6, 300), scores_with_ties(7, 300)
  valid = np.random.default_rng(8).random(300) < 0.5
  boxes[~valid], scores[~valid] = [0, 0, 1000, 1000], 9.0
  boxes[~valid][::3] = np.nan
  found = rows(compiled(0.5, 400)(boxes, scores, valid))
  real = np.flatnonzero(valid)
  assert found == real[greedy(boxes[valid], scores[valid], 0.5)].tolist()
  assert rows(compiled(0.5, 400)(boxes, scores, np.zeros(300, bool))) == []


def test_the_first_of_the_kept_are_returned():
  boxes, scores = random_boxes(9, 300, whole=True), scores_with_ties(10, 300)
  assert rows(compiled(0.5, 20)(boxes, scores)) == greedy(boxes, scores, 0.5)[:20]


def test_groups_do_not_suppress_each_other():
  boxes, scores = random_boxes(11, 400, whole=True), scores_with_ties(12, 400)
  groups = np.random.default_rng(13).integers(0, 5, 400, np.int32)
  found = rows(compiled(0.5, 400)(boxes, scores, groups=groups))
  assert found == greedy(boxes, scores, 0.5, groups)
  shifted = boxes + groups[:, None].astype(np.float32) * 1001  # torchvision's way
  assert found == rows(compiled(0.5, 400)(shifted, scores))


def test_images_of_a_batch_are_independent():
  boxes = np.stack([random_boxes(seed, 100, whole=True) for seed in (14, 15, 16)])
  boxes[2] = boxes[2, :1]  # needs fewer rounds than the others
  scores = np.stack([scores_with_ties(seed, 100) for seed in (17, 18, 19)])
  found = jax.vmap(compiled(0.5, 100, 32))(boxes, scores)
  for i in range(3):
    assert rows((found.index[i], found.valid[i])) == greedy(boxes[i], scores[i], 0.5)


def test_no_gradient_passes():
  def total(boxes):
    kept = nms(boxes, boxes[:, 0], threshold=0.5, count=10)
    return jnp.where(kept.valid, boxes[kept.index, 0], 0.0).sum()

  assert np.isfinite(jax.jit(jax.grad(total))(jnp.array(random_boxes(20, 30)))).all()


def test_memory_stays_far_below_the_matrix_of_overlaps():
  function = functools.partial(nms, threshold=0.7, count=2000)
  assert largest_array(function, shape(MANY, 4), shape(MANY)) < GIGABYTE / 100
  batched = jax.vmap(function)
  assert largest_array(batched, shape(16, MANY, 4), shape(16, MANY)) < GIGABYTE / 8


def test_bfloat16_is_refused():
  with pytest.raises(ValueError, match="boxes has type bfloat16"):
    nms(jnp.zeros((2, 4), jnp.bfloat16), jnp.zeros(2), threshold=0.5, count=2)
