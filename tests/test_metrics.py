"""Metrics: the merged mean of parts equals the mean of the whole; accuracy handles ties; confusions."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as oracle

from ssl_jax.metrics import Mean, accuracy, confusion_matrix, standard_error


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


def test_confusion_matrix_equals_scikit_learn():
  draw = np.random.default_rng(0)
  labels, predictions = draw.integers(0, 6, 200).astype(np.int32), draw.integers(0, 6, 200).astype(np.int32)
  labels[labels == 4] = 0  # a class without images
  expected = oracle(labels, predictions, labels=range(7))
  np.testing.assert_array_equal(confusion_matrix(labels, predictions, 7), expected)


def test_confusions_that_cannot_be_counted_are_refused():
  labels, predictions = np.array([0, 1, 255]), np.array([0, 1, 1])
  with pytest.raises(ValueError, match="there is the label 255, but only 2 classes, 0 to 1; check"):
    confusion_matrix(labels, predictions, 2)
  assert confusion_matrix(labels, predictions, 2, ignore=255).tolist() == [[1, 0], [0, 1]]
  with pytest.raises(ValueError, match="there is the label -1"):
    confusion_matrix(np.array([-1, 2, 1]), predictions, 3)
  with pytest.raises(ValueError, match="there is the prediction 2"):
    confusion_matrix(np.array([0, 1, 1]), np.array([0, 2, 1]), 2)
  with pytest.raises(ValueError, match=r"labels \(3,\) and predictions \(2,\) differ in shape"):
    confusion_matrix(labels, predictions[:2], 2)


def test_the_standard_error_counts_groups_and_not_their_rows():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=50)
  alone = standard_error(scores, rng.permutation(50))
  assert alone == pytest.approx(scores.std(ddof=1) / np.sqrt(50), rel=1e-6)
  assert standard_error(scores.repeat(4), np.repeat(np.arange(50), 4)) == pytest.approx(alone, rel=1e-6)
  assert np.isnan(standard_error(scores, np.zeros(50, int)))
