"""What a task is, what it is given and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.core import Augment

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]  # each call starts a fresh pass


class TaskData(NamedTuple):
  """Labelled images, read as often as a task needs.

  An evaluation batch is {"image": uint8[B, H, W, 3], "label": i32[B]} and, if there, "valid": bool[B] (rows
  that count) and "index": i32[B] (the row's place in the split). With several processes each yields its own
  share, all yield equally many batches of one size, and "index" makes the order of rows independent of how
  many there are.
  """

  train: Batches  # one evaluation-mode view an image: no augmentation
  test: Batches
  num_classes: int
  class_names: tuple[str, ...] = ()
  validation: Batches | None = None  # held-out TRAINING images, absent from `train` and `train_steps`
  # What only a live linear probe needs:
  train_steps: Callable[[int, int, int, int], Iterator[dict[str, np.ndarray]]] | None = None
  # (global batch size, first step, step to end before, seed) -> shuffled full batches, the process's share
  train_size: int = 0  # images in an epoch of `train_steps`
  test_size: int = 0  # images of the test split, for progress; 0: not known
  augment: Augment | None = None  # on device, uint8 in, f32 in [0, 1] out; None: none
  protocol: dict[str, Any] = {}  # data set, splits, resize, crop: repeated in every result's protocol


class Result(NamedTuple):
  """What a task found."""

  scalars: dict[str, float]  # the first is the headline, an accuracy in [0, 1]
  protocol: dict[str, Any]  # all one must know to repeat the numbers; JSON can hold it
  predictions: dict[str, np.ndarray] = {}  # by test row: "label", "prediction", "index", and the task's own


class Task(NamedTuple):
  """A way to measure a backbone.

  `run(backbone, data, mesh, key, *, extract=features.extract, progress=silent) -> Result`. `mesh` has one
  axis, "data", of any length; the result does not depend on that length. `extract` can be
  `features.remembered()`, shared by several tasks on one backbone; `progress(done, total, loss)` is called
  now and then, on every process.
  """

  name: str
  run: Callable[..., Result]
  resumes: bool = False  # takes hours: `run` also takes `shelf`, where it keeps what it has found so far


def silent(done: int, total: int, loss: float) -> None:
  """The progress callback that reports nothing."""


def rank_of_label(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Place of each row's label among its scores, 0 is first; of equal scores the lower class comes first.

  So top-1 is `rank < 1`, exactly argmax; a constant score is right for one class only, not for all.

  Args:
    scores: float[..., Q, C]; labels: i32[Q]. A score that is -inf or nan is never chosen: its rank is C.
  Returns: i64[..., Q].
  """
  labels = np.broadcast_to(labels, scores.shape[:-1])[..., None]
  own = np.take_along_axis(scores, labels, axis=-1)
  before = (scores > own) | ((scores == own) & (np.arange(scores.shape[-1]) < labels))
  return np.where(np.isfinite(own[..., 0]), before.sum(-1), scores.shape[-1])


def check_labels(labels: np.ndarray, num_classes: int, split: str) -> None:
  """Raises ValueError if a label is not in [0, num_classes)."""
  if len(labels) and not (0 <= labels.min() and labels.max() < num_classes):
    raise ValueError(
      f"labels of the {split} images run from {labels.min()} to {labels.max()}, but there are "
      f"{num_classes} classes; every image needs a label from 0 to {num_classes - 1}"
    )


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
  """Raises ValueError naming the known values, and the nearest, if `value` is not one of them."""
  if value not in known:
    raise ValueError(f"unknown {what} {value!r}{nearest(value, known)}")
