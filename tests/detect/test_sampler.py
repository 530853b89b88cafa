"""The sampler: exact counts, no ignored row, no row twice, uniform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.sampler import random_sample
from tests.detect.programs import GIGABYTE, largest_array, shape

sample = jax.jit(random_sample, static_argnames=("count", "most_positives"))


def labels(positives: int, negatives: int, ignored: int) -> np.ndarray:
  found = np.repeat(np.array([1, 0, -1], np.int32), [positives, negatives, ignored])
  return np.random.default_rng(0).permutation(found)


@pytest.mark.parametrize(
  "positives, negatives, wanted",
  [(300, 1000, (128, 128)), (10, 1000, (10, 246)), (0, 1000, (0, 256)), (300, 20, (128, 20)), (0, 0, (0, 0))],
)
def test_counts(positives, negatives, wanted):
  population = labels(positives, negatives, 500)
  found = sample(jax.random.key(1), population, count=256, most_positives=128)
  index, positive, valid = map(np.asarray, found)
  assert (positive.sum(), (valid & ~positive).sum()) == wanted
  assert (population[index[positive]] == 1).all() and (population[index[valid & ~positive]] == 0).all()
  assert len(set(index[valid].tolist())) == valid.sum()
  assert not index[~valid].any() and not (positive & ~valid).any()
  assert (np.diff(valid.astype(int)) <= 0).all() and (np.diff(positive.astype(int)) <= 0).all()


def test_a_population_smaller_than_the_sample():
  found = sample(jax.random.key(2), labels(3, 2, 1), count=16, most_positives=8)
  assert found.index.shape == (16,) and (found.positive.sum(), found.valid.sum()) == (3, 5)


def test_the_draw_is_uniform_and_depends_on_the_key_only():
  population = labels(40, 60, 20)
  draw = jax.jit(jax.vmap(functools.partial(random_sample, labels=population, count=20, most_positives=10)))
  found = draw(jax.random.split(jax.random.key(3), 2000))
  counts = np.bincount(np.asarray(found.index).ravel(), minlength=120)
  for label, expected in ((1, 2000 * 10 / 40), (0, 2000 * 10 / 60)):
    assert np.abs(counts[population == label] - expected).max() < 5 * expected**0.5
  again = sample(jax.random.split(jax.random.key(3), 2000)[7], population, count=20, most_positives=10)
  np.testing.assert_array_equal(again.index, found.index[7])


def test_all_may_be_negative():
  found = sample(jax.random.key(4), labels(5, 5, 0), count=4, most_positives=0)
  assert found.positive.sum() == 0 and found.valid.sum() == 4


def test_memory():
  function = jax.vmap(functools.partial(random_sample, count=256, most_positives=128))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 16))
  assert largest_array(function, keys, shape(16, 261_888, dtype=jnp.int32)) < GIGABYTE / 10


def test_refusals():
  with pytest.raises(ValueError, match="most_positives is 9; use a number from 0 to the sample's 8"):
    random_sample(jax.random.key(0), jnp.zeros(3, jnp.int32), count=8, most_positives=9)
