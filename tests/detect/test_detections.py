"""Detections equal a loop over the classes; background, low scores and padding are never reported."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.detections import select_detections
from tests.detect.programs import GIGABYTE, greedy, largest_array, random_boxes, shape

SIZE = jnp.array([150, 200])
ROIS, CLASSES = 60, 5


def scene(seed: int):
  random = np.random.default_rng(seed)
  logits = random.normal(size=(ROIS, CLASSES + 1)) * 2
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  boxes = random_boxes(seed, ROIS * CLASSES, 220, whole=True).reshape(ROIS, CLASSES, 4)
  return probabilities.astype(np.float32), boxes, np.arange(ROIS) < 50


def by_definition(probabilities, boxes, valid, count):
  found = []
  for label in range(CLASSES):
    scores, mine = (
      probabilities[:, label],
      boxes[:, min(label, boxes.shape[1] - 1)].clip(0, [200, 150, 200, 150]),
    )
    rows = np.flatnonzero(valid & (scores > np.float32(0.05)) & (mine[:, 2:] > mine[:, :2]).all(1))
    kept = rows[greedy(mine[rows], scores[rows], 0.5)]
    found += [(-scores[row], label, row, mine[row]) for row in kept]
  return sorted(found, key=lambda row: row[:3])[:count]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("count", [20, 300])
def test_a_loop_over_the_classes(count, shared):
  probabilities, boxes, valid = scene(0)
  boxes = boxes[:, :1] if shared else boxes
  found = jax.jit(functools.partial(select_detections, count=count))(probabilities, boxes, valid, SIZE)
  wanted = by_definition(probabilities, boxes, valid, count)
  kept = np.asarray(found.valid)
  assert kept.shape == (count,) and kept[: len(wanted)].all() and kept.sum() == len(wanted)
  for field, column in ((found.classes, 1), (found.roi, 2), (found.boxes, 3)):
    np.testing.assert_array_equal(field[kept], [row[column] for row in wanted])
    assert not np.asarray(field)[~kept].any()
  np.testing.assert_array_equal(found.scores[kept], [-row[0] for row in wanted])


def test_enough_candidates_change_nothing():
  probabilities, boxes, valid = scene(1)
  enough = int((probabilities > 0.05).sum())
  run = functools.partial(select_detections, count=50)
  found = run(probabilities, boxes, valid, SIZE, candidates=enough)
  np.testing.assert_array_equal(found.boxes, run(probabilities, boxes, valid, SIZE).boxes)


def test_small_boxes_are_not_reported():
  probabilities, boxes, valid = scene(2)
  smallest = []
  for least in (0.0, 20.0):
    found = select_detections(probabilities, boxes, valid, SIZE, least_side=least)
    smallest.append((found.boxes[:, 2:] - found.boxes[:, :2])[found.valid].min())
  assert smallest[0] <= 20 < smallest[1]


def test_nothing_is_reported_where_nothing_is():
  probabilities, boxes, _ = scene(2)
  assert not select_detections(probabilities, boxes, np.zeros(ROIS, bool), SIZE).valid.any()
  background = np.zeros_like(probabilities)
  background[:, -1] = 1
  assert not select_detections(background, boxes, np.ones(ROIS, bool), SIZE).valid.any()
  assert not select_detections(
    probabilities * np.float32(np.nan), boxes, np.ones(ROIS, bool), SIZE
  ).valid.any()


def test_batches_and_memory():
  scenes = [scene(3), scene(4)]
  found = jax.jit(jax.vmap(functools.partial(select_detections, image_size=SIZE)))(
    *map(np.stack, zip(*scenes))
  )
  for i in range(2):
    np.testing.assert_array_equal(found.boxes[i], select_detections(*scenes[i], SIZE).boxes)
  batch = jax.vmap(functools.partial(select_detections, image_size=SIZE))
  assert (
    largest_array(batch, shape(8, 1000, 81), shape(8, 1000, 80, 4), shape(8, 1000, dtype=bool)) < GIGABYTE / 8
  )
