"""Counting: the pieces, the constraint and the margin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.augment import resample
from ssl_jax.core import DataSpec
from ssl_jax.methods import counting

DATA = DataSpec(100, 10, 8)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))


def test_quarters_are_the_image_and_the_copy_is_one_of_four_reductions():
  task = counting.make_task(jax.random.key(3), IMAGES, 0.0)
  upper, lower = (jnp.concatenate([task.inputs[:, a], task.inputs[:, a + 1]], 2) for a in (1, 3))
  np.testing.assert_array_equal(jnp.concatenate([upper, lower], 1), IMAGES)
  seen = set()
  for image, small in zip(IMAGES, task.inputs[:, 0]):
    ways = [jax.image.resize(image, (8, 8, 3), way) for way in ("nearest", "linear", "cubic", "lanczos3")]
    errors = [float(jnp.abs(jnp.clip(way, 0, 1) - small).max()) for way in ways]
    assert min(errors) < 1e-4
    seen.add(int(np.argmin(errors)))
  assert len(seen) > 1


@pytest.mark.parametrize(
  "method, theirs",
  [("nearest", "nearest"), ("bilinear", "linear"), ("bicubic", "cubic"), ("lanczos", "lanczos3")],
)
@pytest.mark.parametrize("full, size", [(32, 16), (20, 7), (7, 20)])
def test_matrices_resample_as_jax_does(method, theirs, full, size):
  wanted = jax.image.resize(jnp.eye(full), (size, full), theirs)
  np.testing.assert_allclose(resample.matrix(full, size, method), wanted, atol=1e-5)


def test_grey_is_shared_by_all_pieces():
  pieces = np.asarray(counting.make_task(jax.random.key(0), jnp.tile(IMAGES, (40, 1, 1, 1)), 0.67).inputs)
  grey = np.ptp(pieces, axis=-1).max((2, 3)) < 1e-5
  assert (grey == grey[:, :1]).all() and abs(grey[:, 0].mean() - 0.67) < 0.09


def test_nothing_counted_costs_the_margin():
  scores = counting.counting_scores(jnp.zeros((4, 5)), jnp.zeros((4, 5)), 10.0)
  np.testing.assert_array_equal(scores["loss"], 10)
  assert not np.any(scores["accuracy"])


def test_equal_counts_for_all_images_are_not_accurate():
  same = jnp.tile(jax.random.uniform(jax.random.key(0), (1, 5)), (4, 1))
  scores = jax.jit(counting.counting_scores)(same, 3 * same, 10.0)
  assert not np.any(scores["accuracy"])


def test_a_mean_breaks_the_constraint_by_nine_and_a_count_keeps_it():
  m = jnp.array([[1.0, 2.0], [0.5, 0.0]])
  scores = counting.counting_scores(m, 4 * m, 0.0)
  np.testing.assert_allclose(scores["loss"], 9 * (m**2).sum(-1))
  kept = counting.counting_scores(4 * m, 4 * m, 1.0)
  np.testing.assert_allclose(kept["loss"], 0)
  assert np.asarray(kept["accuracy"]).all()


def test_the_margin_is_on_the_scalar_distance_and_switches_off():
  def loss(small):
    return counting.counting_scores(small, jnp.zeros((2, 3)), 10.0)["loss"][0]

  far, near = jnp.array([[0.0] * 3, [2.0] * 3]), jnp.array([[0.0] * 3, [1.0] * 3])
  assert float(loss(far)) == 0 and float(loss(near)) == 10 - 3
  assert not np.any(np.asarray(jax.grad(loss)(far))) and np.any(np.asarray(jax.grad(loss)(near)))


def test_every_count_starts_alive():
  encoder = models.make("resnet10", width=64, stem="small")
  net = models.stack(encoder, models.network(models.heads.Counts(200)))
  found = jax.jit(lambda key: net.apply(net.init(key, IMAGES), IMAGES)[0])(jax.random.key(0))
  assert (np.asarray(found) > 0).any(0).mean() > 0.9
  assert float(jnp.square(found).sum(-1).mean()) < 10 / 9  # so that a run starts near the margin


def test_quarters_may_change_places():
  swap = jnp.concatenate([IMAGES[:, 8:], IMAGES[:, :8]], 1)
  quarters = [counting.make_task(jax.random.key(0), x, 0.0).inputs[:, 1:].sum(1) for x in (IMAGES, swap)]
  np.testing.assert_allclose(*quarters, atol=1e-5)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(margin=0.0), "margin 0.0 and counts 1000 must be positive"),
    (dict(counts=0), "counts 0 must be positive"),
  ],
)
def test_refusals(options, message):
  encoder = models.make("resnet10", width=8, stem="small")
  with pytest.raises(ValueError, match=message):
    methods.make("counting", encoder, DATA, **options)
  with pytest.raises(ValueError, match="config.batch_size 7 is odd, but method 'counting' pairs images"):
    methods.make("counting", encoder, DataSpec(100, 10, 7))
  with pytest.raises(ValueError, match="config.batch_size 12 divided by config.accumulate 4 is odd"):
    methods.make("counting", encoder, DataSpec(100, 10, 12, parts=4))
  with pytest.raises(ValueError, match="config.augment.size 15 is odd"):
    counting.make_task(jax.random.key(0), jnp.zeros((2, 15, 15, 3)), 0.5)
