"""The types of a task, of its input and of its result."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.core import Augment
from ssl_jax.data.elements import Record, Transform

NEVER_TRAINED = "test_classes_without_training_images"  # an entry of a protocol: the names of such classes
Batches = Callable[[], Iterator[dict[str, np.ndarray]]]  # each call starts a new pass over the data


class TestRecords(NamedTuple):
  """The test records with all their fields, for tasks that need more than a square image and its label."""

  # (host transform) -> evaluation batches with its elements, "valid" and "index"
  batches: Callable[[Transform], Iterator[dict[str, np.ndarray]]]
  # (host transform, indices) -> the elements of these records [N, ...], on every process
  read: Callable[[Transform, Sequence[int]], dict[str, np.ndarray]]
  record: Callable[[int], Record]  # the record as the source stores it
  sizes: Callable[[], np.ndarray]  # i32[N, 2]: (height, width) of every image; 0 if it cannot be read
  fields: tuple[str, ...]  # of a record, such as "mask"
  class_names: tuple[str, ...] = ()  # of the masks
  interpolation: str = "bilinear"  # of resized images
  clip_names: tuple[str, ...] = ()  # of each record, where the source tells them; see `Source`
  things: tuple[str, ...] = ()  # classes of the masks whose segments are objects
  # () -> the host transform of the training run, at the size of the evaluation
  trained: Callable[[], Transform] | None = None


class TaskData(NamedTuple):
  """Labelled images, which a task can read several times.

  An evaluation batch is {"image": uint8[B, H, W, 3], "label": i32[B]} with the optional entries "valid":
  bool[B] (False: a padded row, which is ignored) and "index": i32[B] (the position of the row in the split).
  With several processes, each yields its own rows, all yield the same number of batches of the same size, and
  "index" makes the order of the rows independent of the number of processes.
  """

  train: Batches  # one evaluation view per image, without augmentation
  test: Batches
  num_classes: int
  class_names: tuple[str, ...] = ()
  validation: Batches | None = None  # held-out TRAINING images, absent from `train` and `train_steps`
  # (global batch size, first step, step to end before, seed) -> shuffled full batches, of which each process
  # yields its own rows; only a live linear probe needs it
  train_steps: Callable[[int, int, int, int], Iterator[dict[str, np.ndarray]]] | None = None
  train_size: int = 0  # number of images in an epoch of `train_steps`
  test_size: int = 0  # number of images in the test split, for progress; 0: unknown
  records: TestRecords | None = None  # of the test split
  test_sorted_size: int = 0  # the same if the test images are sorted by class, else 0
  max_bad_fraction: float = 0.01  # of the images of released sets, see pipeline.eval_batches
  augment: Augment | None = None  # on the device, uint8 in, f32 in [0, 1] out; None: no augmentation
  protocol: dict[str, Any] = {}  # data set, splits, resize, crop: part of the protocol of every result


class Result(NamedTuple):
  """The result of a task."""

  scalars: dict[str, float]  # the first one is the main result, often an accuracy or an error in [0, 1]
  protocol: dict[str, Any]  # everything that is needed to reproduce the numbers; can be written as JSON
  predictions: dict[str, np.ndarray] = {}  # one row per test image: "label", "prediction", "index" and others
  class_names: tuple[str, ...] = ()  # of the labels and predictions; (): those of the data
  # (path without a suffix, title): draws the result; None: what `predictions` and `protocol` hold is drawn
  plot: Callable[[pathlib.Path, str], None] | None = None


class Task(NamedTuple):
  """A measurement of a backbone.

  `run(backbone, data, mesh, key, *, extract=features.extract, progress=silent) -> Result`. `mesh` has one
  axis, "data", of any length, and the result does not depend on that length. `extract` can be
  `features.remembered()`, shared by several tasks on one backbone. `progress(done, total, loss)` is called
  repeatedly, on every process; a task without a loss gives a text in its place.
  """

  name: str
  run: Callable[..., Result]
  resumes: bool = False  # True if it takes hours: `run` also takes `partial_results`, from which it resumes


def silent(done: int, total: int, loss: float | str) -> None:
  """A progress callback that does nothing."""


def rank_of_label(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the rank of each row's label among its scores; 0 is the highest score.

  Of equal scores the lower class comes first. Top-1 is therefore `rank < 1`, exactly as with argmax, and a
  constant score is correct for only one class.

  Args:
    scores: float[..., Q, C]. A class whose score is not finite is never chosen: its rank is C.
    labels: i32[Q].
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


def never_trained(train: np.ndarray, test: np.ndarray, class_names: Sequence[str]) -> dict[str, list[str]]:
  """Returns the part of a protocol that names the classes of the test labels without a training label; {} if
  there are none.
  """
  missing = sorted(set(np.unique(test).tolist()) - set(np.unique(train).tolist()))
  names = [str(class_names[i]) if i < len(class_names) else str(i) for i in missing]
  return {NEVER_TRAINED: names} if names else {}


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
  """Raises ValueError if `value` is not in `known`; the message names the nearest and all known values."""
  if value not in known:
    raise ValueError(f"unknown {what} {value!r}{nearest(value, known)}")
