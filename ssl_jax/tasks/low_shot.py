"""How well a linear classifier predicts the classes from frozen features, learned from a few labelled images.

Each of several draws of labelled images fits a classifier. Nothing has to be tuned, so representations of any
width and scale are compared fairly. The penalty of a ridge regression of the classes on the features is
chosen by the error of leaving one labelled image out, which a closed form gives (Allen 1974; Golub, Heath &
Wahba 1979). That of logistic regression and of support vector machines is chosen by cross-validation on the
labelled images, as Goyal et al. 2019 choose the costs of linear SVMs.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.few_label_classifiers import check_installed, choose_logistic, choose_svm
from ssl_jax.tasks.task import Result, Task, TaskData, check_labels, never_trained, silent

PENALTIES = tuple(10.0**power for power in np.arange(-4, 3.5, 0.5))  # times the mean squared norm of a row
_DESCRIBED = {
  "ridge": "ridge regression of the classes, penalty by leaving one out",
  "logistic": "multinomial logistic regression, penalty by cross-validation",
  "svm": "linear support vector machines, one class against the rest, penalty by cross-validation",
}
_LEAST = 1e-6  # standard deviation of a feature, relative to the largest, at least


class Settings(NamedTuple):
  """The options of the task, see `make`."""

  classifier: str
  shots: int
  fraction: float
  draws: int
  layer: str
  grid: int


def make(
  *,
  shots: int = 10,
  fraction: float = 0.0,
  draws: int = 20,
  classifier: Literal["ridge", "logistic", "svm"] = "ridge",
  layer: str = "",
  grid: int = 1,
) -> Task:
  """Classifiers of a few labelled training images, equally many of each class, scored on all test images.

  The features are standardised over all training images, which needs no labels. "top1" is the mean accuracy
  over the draws, "standard_deviation" that of a draw and "standard_error" that of the mean; the draws share
  the network and the test images.

  Args:
    shots: labelled images of each class.
    fraction: of the training images that are labelled, in the place of `shots`: 0.01 and 0.1 are usual. The
      number of each class is rounded, and is 1 at least. 0: `shots` counts.
    draws: how often they are drawn; the draws depend on `config.seed`.
    classifier: "ridge"; "logistic" (multinomial) or "svm" (linear, one class against the rest, squared hinge
      loss), by scikit-learn (extra `report`).
    layer, grid: as in `features.extract`.
  Raises: ValueError for options out of range, or if scikit-learn is not installed; in `run`, if a class of
    the training images has fewer than `shots`.
  """
  if min(shots, draws) < 1 or not 0 <= fraction < 1:
    raise ValueError(
      f"config.tasks: shots={shots} and draws={draws} must be 1 or more, and fraction={fraction} in [0, 1)"
    )
  if classifier != "ridge":
    check_installed(classifier)
  return Task("low_shot", functools.partial(_run, Settings(classifier, shots, fraction, draws, layer, grid)))


def _run(
  settings: Settings,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: jax.Array,
  *,
  extract=extract_features,
  progress=silent,
) -> Result:
  where = dict(layer=settings.layer, grid=settings.grid)
  train, test = (extract(backbone, batches, mesh, **where) for batches in (data.train, data.test))
  check_labels(train.y, data.num_classes, "training")
  check_labels(test.y, data.num_classes, "test")
  train, test = standardised(train, test)
  shots = settings.shots
  if settings.fraction:
    shots = max(round(settings.fraction * len(train.y) / len(np.unique(train.y))), 1)
  random = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
  accuracies, penalties = [], []
  for number in range(settings.draws):
    rows = draw_rows(random, train.y, shots, data.class_names)
    chosen, penalty = CLASSIFIERS[settings.classifier](train.x[rows], train.y[rows], test.x)
    accuracies.append(float((chosen == test.y).mean()))
    penalties.append(penalty)
    progress(number + 1, settings.draws, f"top-1 {100 * np.mean(accuracies):.1f}%")
  spread = float(np.std(accuracies, ddof=1)) if settings.draws > 1 else math.nan
  scalars = {"top1": float(np.mean(accuracies)), "standard_error": spread / math.sqrt(settings.draws)}
  scalars["standard_deviation"] = spread
  protocol = {
    **data.protocol,
    **backbone.protocol,
    **never_trained(train.y, test.y, data.class_names),
    "task": "low_shot",
    "shots": shots,
    "fraction": settings.fraction,
    "draws": settings.draws,
    "classifier": _DESCRIBED[settings.classifier],
    "normalisation": "features standardised over all training images",
    "backbone_mode": "evaluation",
    "layer": settings.layer or "encode",
    "grid": settings.grid,
    "accuracies": accuracies,
    "penalties": penalties,
    "test_rows": len(test.x),
    "dimensions": train.x.shape[1],
  }
  return Result(scalars, protocol)


def standardised(train: Features, test: Features) -> tuple[Features, Features]:
  """Takes the mean of the training features away and divides by their deviation, in float64."""
  x = train.x.astype(np.float64)
  mean, deviation = x.mean(0), x.std(0)
  deviation = np.maximum(deviation, max(_LEAST * deviation.max(), np.finfo(np.float64).tiny))
  return train._replace(x=(x - mean) / deviation), test._replace(x=(test.x - mean) / deviation)


def draw_rows(random: np.random.Generator, labels: np.ndarray, shots: int, names=()) -> np.ndarray:
  """i64[classes * shots]: rows of the labels i32[N], `shots` of each class that occurs.

  Raises: ValueError for a class with fewer.
  """
  order = random.permutation(len(labels))
  chosen = []
  for label in np.unique(labels):
    rows = order[labels[order] == label][:shots]
    if len(rows) < shots:
      name = names[label] if names else label
      raise ValueError(
        f"config.tasks: shots={shots}, but class {name!r} has {len(rows)} training images; use "
        "that or fewer, or a smaller fraction"
      )
    chosen.append(rows)
  return np.concatenate(chosen)


def ridge_scores(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """Regresses one-hot classes on features and applies the regression to other features.

  Args:
    x: f64[N, D].
    labels: i32[N].
    queries: f64[Q, D].
  Returns: (f64[Q, 1 + the largest label], the penalty: of PENALTIES the one with the least squared error of
    the images that were left out). A class without an image gets 0.
  """
  targets = np.eye(labels.max() + 1)[labels]
  centre, offset = x.mean(0), targets.mean(0)
  x, targets = x - centre, targets - offset
  values, vectors = np.linalg.eigh(x @ x.T)
  # The constant, which is not penalised, is the null vector that centring left in x x^T.
  constant = np.abs(vectors.sum(0)).argmax()
  best = (math.inf, 0.0, targets)
  for penalty in PENALTIES:
    inverse = 1 / (np.maximum(values, 0) + penalty * max(np.mean(np.square(x).sum(1)), 1e-30))
    inverse[constant] = 0.0
    dual = (vectors * inverse) @ (vectors.T @ targets)
    left_out = dual / (np.square(vectors) @ inverse)[:, None]
    best = min(best, (float(np.square(left_out).mean()), penalty, dual), key=lambda found: found[0])
  _, penalty, dual = best
  return (queries - centre) @ (x.T @ dual) + offset, penalty


def choose_ridge(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """The class of each query i64[Q] by `ridge_scores`, and the penalty."""
  scores, penalty = ridge_scores(x, labels, queries)
  return scores.argmax(1), penalty


CLASSIFIERS = {"ridge": choose_ridge, "logistic": choose_logistic, "svm": choose_svm}
