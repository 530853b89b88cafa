"""The losses of DensePose: hand-computed values, where gradients go, what does not count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect import densepose_losses
from ssl_jax.detect.densepose_losses import DenseLogits, DenseRois, DenseTargets
from ssl_jax.detect.losses import Truth
from ssl_jax.detect.proposals import Rois

SIZE, POINTS = 8, 3
BOXES = jnp.array([[10.0, 20.0, 50.0, 100.0], [0.0, 0.0, 16.0, 16.0]])


def logits(coarse=2, rois=2, value=0.0):
  shape = (rois, SIZE, SIZE)
  return DenseLogits(*(jnp.full((*shape, width), value) for width in (coarse, 25, 25, 25)))


def targets(part=(3, 24, 0)):
  points = jnp.array([[[0.25, 0.5], [0.75, 0.125], [0.0, 0.0]]] * 2)
  uv = jnp.array([[[0.5, 1.0], [0.25, 0.0], [9.0, 9.0]]] * 2)
  valid = jnp.array([[True, True, False], [False] * 3])
  segments = jnp.zeros((2, 4, 4), jnp.uint8).at[:, :2].set(7)  # the upper half
  return DenseTargets(points, jnp.array([part] * 2, jnp.int32), uv, valid, segments)


ROIS = DenseRois(BOXES, jnp.array([0, 1], jnp.int32), jnp.array([True, False]))


def losses(logits, rois=ROIS, targets=None, **options):
  wanted = targets or globals()["targets"]()
  terms = densepose_losses.dense_terms(logits, rois, BOXES, wanted, **options)
  return densepose_losses.dense_losses(jax.tree.map(lambda leaf: leaf[None], terms), images_summed=1)


@pytest.mark.parametrize("coarse", [2, 15])
def test_without_knowledge_the_losses_are_logarithms(coarse):
  found = losses(logits(coarse))
  assert found["fine"] == pytest.approx(np.log(25), abs=1e-5)  # 3.2189
  assert found["coarse"] == pytest.approx(5 * np.log(coarse), abs=1e-5)
  # d^2 / 2 of (0.5, 1) and (0.25, 0), summed
  assert found["uv"] == pytest.approx(0.01 * (0.125 + 0.5 + 0.03125), abs=1e-7)


def test_a_right_answer_has_no_loss():
  fine = jnp.zeros((2, SIZE, SIZE, 25)).at[:, 4:, :, 3].set(50).at[:, :4, :, 24].set(50)
  fine = fine.at[:, 3, :, 3].set(50).at[:, 3, :, 24].set(0)  # the point at half the height reads rows 3 and 4
  u = jnp.zeros((2, SIZE, SIZE, 25)).at[..., 3].set(0.5).at[..., 24].set(0.25)
  v = jnp.zeros((2, SIZE, SIZE, 25)).at[..., 3].set(1.0)
  coarse = jnp.zeros((2, SIZE, SIZE, 15)).at[:, :4, :, 7].set(50).at[:, 4:, :, 0].set(50)
  for name, value in losses(DenseLogits(coarse, fine, u, v)).items():
    assert value < 1e-6, name
  two = jnp.stack([coarse[..., 0], coarse[..., 7]], -1)  # whether there is a person
  assert losses(DenseLogits(two, fine, u, v))["coarse"] < 1e-6


def test_u_and_v_learn_at_the_true_part_only():
  random = np.random.default_rng(0)
  start = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), logits())
  gradients = jax.grad(lambda l: losses(l)["uv"])(start)
  for leaf in (gradients.u, gradients.v):
    touched = np.flatnonzero(np.abs(np.asarray(leaf)).max((0, 1, 2)) > 0)
    assert touched.tolist() == [3, 24]
    assert not np.asarray(leaf[1]).any()  # a RoI that is not valid
  assert not np.asarray(gradients.fine).any()
  # Where the points are: (0.25, 0.5) of 8 pixels lies between the centres of 1 and 2, and of 3 and 4.
  rows, columns = np.nonzero(np.asarray(gradients.u)[0, ..., 3])
  assert sorted(zip(rows.tolist(), columns.tolist())) == [(3, 1), (3, 2), (4, 1), (4, 2)]
  legacy = jax.grad(lambda l: losses(l, aligned=False)["uv"])(start)
  assert np.argwhere(np.asarray(legacy.u)[0, ..., 3]).tolist() == [[4, 2]]  # pixel i lies at i


def test_background_points_teach_no_place():
  found = losses(logits(), targets=targets((0, 24, 0)))
  assert found["uv"] == pytest.approx(0.01 * 0.03125, abs=1e-7)
  assert found["fine"] == pytest.approx(np.log(25), abs=1e-5)


@pytest.mark.parametrize("what", ["no point", "no roi"])
def test_nothing_annotated_gives_exactly_zero(what):
  wanted = targets()
  rois = ROIS._replace(valid=jnp.zeros(2, bool))
  if what == "no point":
    wanted = wanted._replace(valid=jnp.zeros((2, POINTS), bool))
  wanted = wanted._replace(uv=wanted.uv * jnp.nan, points=wanted.points * jnp.nan)
  value, gradients = jax.value_and_grad(lambda l: sum(losses(l, rois, wanted).values()))(logits(value=0.3))
  assert value == 0
  assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_points_outside_the_roi_do_not_count():
  """A RoI that is the left half of the object's box, in which only one of two points lies."""
  half = BOXES.at[0].set(jnp.array([10.0, 20.0, 30.0, 100.0]))
  found = densepose_losses.dense_terms(logits(), ROIS._replace(boxes=half), BOXES, targets())
  assert found.points == 1 and found.uv == pytest.approx(0.625)


def test_the_loss_of_places_is_a_sum_over_a_number_of_images():
  terms = densepose_losses.dense_terms(logits(), ROIS, BOXES, targets())
  batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), terms)
  for images in (1, 2):
    found = densepose_losses.dense_losses(batch, images_summed=images)
    assert found["uv"] == pytest.approx(0.01 * images * float(terms.uv))
    assert found["fine"] == pytest.approx(np.log(25), abs=1e-5)


def test_rois_are_those_that_overlap_with_an_annotated_object():
  truth = Truth(BOXES, jnp.zeros(2, jnp.int32), jnp.ones(2, bool), jnp.zeros(2, bool))
  near = BOXES[0] + jnp.array([0.0, 0.0, 0.0, -23.9])
  far = BOXES[0] + jnp.array([0.0, 0.0, 0.0, -24.1])
  boxes = jnp.stack([far, BOXES[1], near, BOXES[0], BOXES[0], BOXES[0]])
  truth_rows = jnp.array([0, 1, 0, 0, 0, 0], jnp.int32)
  flags = jnp.array([True] * 4 + [False, True]), jnp.array([True] * 5 + [False])
  rois = Rois(boxes, truth_rows, *flags)
  select = jax.jit(functools.partial(densepose_losses.select_rois, count=3))
  found = select(rois, truth, jnp.array([True, False]))
  assert found.valid.tolist() == [True, True, False]
  np.testing.assert_array_equal(found.boxes[:2], boxes[2:4])
  assert not found.boxes[2].any()
  both = select(rois, truth, jnp.array([True, True]))
  assert both.truth.tolist() == [1, 0, 0] and both.valid.all()


def test_segments_are_read_at_the_nearest_pixel():
  segments = jnp.arange(16, dtype=jnp.uint8).reshape(4, 4)
  frame = jnp.array([8.0, 8.0, 16.0, 16.0])
  same = densepose_losses.crop_segments(segments, frame, frame, 4)
  np.testing.assert_array_equal(same, segments)
  shifted = densepose_losses.crop_segments(segments, frame, frame + 4.0, 4)
  assert shifted[0].tolist() == [10, 11, 0, 0] and not shifted[2:].any()


def test_bilinear_sampling_reads_a_ramp():
  row, column = jnp.mgrid[:6, :5].astype(jnp.float32)
  values = jnp.stack([column, 10 * row], -1)
  places = jnp.array([[1.25, 2.5], [0.0, 0.0], [4.0, 5.0], [-3.0, 9.0]])
  found = densepose_losses.sample_bilinear(values, places)
  np.testing.assert_allclose(found, [[1.25, 25], [0, 0], [4, 50], [0, 50]], atol=1e-5)
