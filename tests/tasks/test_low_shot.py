"""Classifiers of a few labelled images: equal to scikit-learn's, drawn evenly, the same on every mesh."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from ssl_jax import tasks
from ssl_jax.tasks import few_label_classifiers, low_shot
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.pixel_baseline import pixels


@pytest.mark.parametrize("width", [8, 300])
def test_equals_ridge_regression_of_scikit_learn(width):
  draw = np.random.default_rng(width)
  labels, centres = np.arange(50) % 5, draw.standard_normal((5, width))
  x, queries = 0.3 * centres[labels] + draw.standard_normal((50, width)), draw.standard_normal((40, width))
  found, penalty = low_shot.ridge_scores(x, labels, queries)
  scale = np.square(x - x.mean(0)).sum(1).mean()
  oracle = RidgeCV(alphas=scale * np.array(low_shot.PENALTIES)).fit(x, np.eye(5)[labels])
  assert oracle.alpha_ == pytest.approx(penalty * scale)
  np.testing.assert_allclose(found, oracle.predict(queries), atol=1e-9)


def test_draws_hold_as_many_images_of_each_class():
  labels = np.array([3] * 7 + [0] * 5 + [1] * 9)
  rows = low_shot.draw_rows(np.random.default_rng(0), labels, 4)
  assert np.bincount(labels[rows]).tolist() == [4, 4, 0, 4] and len(set(rows)) == 12
  names = ("a", "b", "c", "d")
  with pytest.raises(ValueError, match="shots=6, but class 'a' has 5 training images; use that or fewer"):
    low_shot.draw_rows(np.random.default_rng(0), labels, 6, names)


def test_standardising_uses_the_training_images_and_keeps_constant_features_finite():
  draw = np.random.default_rng(0)
  x = np.concatenate([draw.normal(5, 3, (50, 4)), np.full((50, 1), 2.0)], 1).astype(np.float32)
  index = np.arange(50, dtype=np.int32)
  train, test = low_shot.standardised(Features(x, index, index), Features(x[:9] + 1, index[:9], index[:9]))
  np.testing.assert_allclose(train.x[:, :4].mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(train.x[:, :4].std(0), 1, atol=1e-6)
  assert np.isfinite(test.x).all() and (test.x[:, :4] > train.x[:9, :4]).all()


def test_images_to_accuracy(blobs, noise, make_data, mesh_of):
  data = make_data(blobs(200, 0, 60.0), blobs(90, 1, 60.0), 3)
  task = tasks.make("low_shot", shots=3, draws=4)
  one, eight = (task.run(pixels(), data, mesh_of(n), jax.random.key(0)) for n in (1, 8))
  assert one.scalars == eight.scalars and one.scalars["top1"] > 0.7
  assert len(one.protocol["accuracies"]) == 4 and one.protocol["shots"] == 3
  other = task.run(pixels(), data, mesh_of(1), jax.random.key(1))
  assert other.protocol["accuracies"] != one.protocol["accuracies"]
  chance = task.run(pixels(), make_data(noise(400, 0), noise(400, 1), 10), mesh_of(1), jax.random.key(0))
  assert 0.05 < chance.scalars["top1"] < 0.16


@pytest.mark.parametrize("classifier", ["logistic", "svm"])
def test_other_classifiers_separate_what_can_be_separated(classifier):
  draw = np.random.default_rng(0)
  labels, centres = np.arange(30) % 3, 3 * draw.standard_normal((3, 16))
  x, queries = (centres[labels] + draw.standard_normal((30, 16)) for _ in range(2))
  for rows in (slice(30), slice(3)):  # with one image of each class nothing can be held out
    found, cost = low_shot.CLASSIFIERS[classifier](x[rows], labels[rows], queries)
    assert (found == labels).mean() > 0.9 and cost > 0
  again, _ = low_shot.CLASSIFIERS[classifier](x, labels + 4, queries)  # classes are numbers, not places
  assert (again == labels + 4).mean() > 0.9


def test_a_fraction_is_divided_evenly_among_the_classes(blobs, make_data, mesh_of):
  data = make_data(blobs(200, 0, 60.0), blobs(90, 1, 60.0), 3)
  options = dict(draws=3, classifier="logistic")
  found = [
    tasks.make("low_shot", fraction=f, **options).run(pixels(), data, mesh_of(1), jax.random.key(0))
    for f in (0.001, 0.05)
  ]
  assert [result.protocol["shots"] for result in found] == [1, 3]
  assert found[1].protocol["fraction"] == 0.05 and "logistic" in found[1].protocol["classifier"]
  scalars, accuracies = found[1].scalars, found[1].protocol["accuracies"]
  assert scalars["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
  assert scalars["standard_error"] == pytest.approx(scalars["standard_deviation"] / np.sqrt(3))
  assert scalars["top1"] > 0.7


def test_without_scikit_learn_the_cure_is_named(monkeypatch):
  monkeypatch.setattr(few_label_classifiers.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="classifier='svm' needs scikit-learn.*use 'ridge', or pip install"):
    tasks.make("low_shot", classifier="svm")
  tasks.make("low_shot")


@pytest.mark.parametrize("options", [dict(shots=0), dict(draws=0), dict(fraction=1.5)])
def test_senseless_options_are_refused(options):
  with pytest.raises(ValueError, match="must be 1 or more"):
    tasks.make("low_shot", **options)
