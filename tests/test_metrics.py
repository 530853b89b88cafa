"""Metrics: the merged mean of parts equals the mean of the whole; accuracy handles ties."""

import jax.numpy as jnp
import numpy as np

from ssl_jax.metrics import Mean, accuracy


def test_masked_batches_merge_to_the_unpadded_mean():
  values = jnp.arange(10.0)
  first = Mean.of(values[:6])
  padded = jnp.concatenate([values[6:], jnp.array([99.0, jnp.nan])])
  second = Mean.of(padded, jnp.array([True] * 4 + [False] * 2))
  np.testing.assert_allclose((first + second).value(), values.mean())


def test_accuracy_counts_top_k_and_does_not_trust_ties():
  logits = jnp.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.0, 0.0, 0.0]])
  labels = jnp.array([1, 2, 2])
  np.testing.assert_allclose(accuracy(logits, labels).value(), 1 / 3)
  np.testing.assert_allclose(accuracy(logits, labels, k=2).value(), 2 / 3)
  np.testing.assert_allclose(accuracy(logits, labels, jnp.array([True, True, False])).value(), 1 / 2)


def test_accuracy_of_logits_that_say_nothing():
  labels = jnp.arange(5)
  for value, k, expected in ((0.0, 1, 1 / 5), (0.0, 3, 3 / 5), (jnp.nan, 1, 0.0), (jnp.nan, 5, 0.0)):
    np.testing.assert_allclose(accuracy(jnp.full((5, 5), value), labels, k=k).value(), expected)


def test_a_mean_of_nothing_is_not_a_number():
  assert np.isnan(Mean.of(jnp.ones(3), jnp.zeros(3, bool)).value())
