"""Classifiers of scikit-learn on a few labelled features, whose penalties cross-validation chooses."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np

COSTS = tuple(10.0**power for power in range(-6, 3))  # inverse penalties, relative to the width of features
FOLDS = 3  # of the cross-validation, as in Goyal et al. 2019; fewer if a class has fewer images
_STEPS = 1000  # of the optimisers, at most


def check_installed(classifier: str) -> None:
  """Raises ValueError if scikit-learn is not installed."""
  if importlib.util.find_spec("sklearn") is None:
    raise ValueError(
      f"config.tasks: classifier={classifier!r} needs scikit-learn, which is not installed; use 'ridge', or "
      "pip install 'ssl_jax[report]'"
    )


def choose_logistic(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """Multinomial logistic regression with an L2 penalty.

  Args:
    x: f64[N, D], standardised features.
    labels: i32[N]; each class has the same number of rows.
    queries: f64[Q, D].
  Returns: (the class of each query i32[Q], the inverse penalty that was chosen).
  """
  from sklearn.linear_model import LogisticRegression  # here: it is an extra

  return _choose(lambda cost: LogisticRegression(C=cost, max_iter=_STEPS), x, labels, queries)


def choose_svm(x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """Linear support vector machines, one class against the rest; as `choose_logistic`."""
  from sklearn.svm import LinearSVC

  return _choose(lambda cost: LinearSVC(C=cost, max_iter=_STEPS, random_state=0), x, labels, queries)


def _choose(make, x: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, float]:
  """Fits `make(cost)` with the cost of the best cross-validation; of equal ones the greatest penalty.

  With one row of each class nothing can be held out, and the middle of COSTS is taken.
  """
  from sklearn.model_selection import StratifiedKFold, cross_val_score

  costs = np.array(COSTS) * 100 / x.shape[1]
  folds = min(FOLDS, int(np.bincount(labels)[labels].min()))
  best = len(costs) // 2
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of optimisers that stop early, which cross-validation judges
    if folds > 1:
      split = StratifiedKFold(folds, shuffle=True, random_state=0)
      best = int(np.argmax([cross_val_score(make(cost), x, labels, cv=split).mean() for cost in costs]))
    return make(costs[best]).fit(x, labels).predict(queries), float(costs[best])
