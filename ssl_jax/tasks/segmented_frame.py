"""A frame with its labels and predictions, and its parts: objects, and regions of classes without objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.host import IGNORE
from ssl_jax.tasks.video_streams import Video

Rows = Mapping[str, np.ndarray]  # [N, ...] by name: what was counted on each frame


class Frame(NamedTuple):
  """A frame at the size of its labels."""

  truth: np.ndarray  # uint8[H, W]: classes of the network, or IGNORE
  predicted: np.ndarray  # uint8[3, H, W], by KINDS
  segments: np.ndarray | None = None  # i32[H, W], as `segments.decode_segments`
  confidence: np.ndarray | None = None  # float[3, H, W] in [0, 1]: the probability of the predicted class


class Measure(NamedTuple):
  """How a score is counted on each frame and reported for all of them."""

  count: Callable[[Frame], dict[str, np.ndarray | bytes]]  # what a frame's row keeps of it
  # (rows of all frames, with "video", "moment" and "index"; videos) -> (scalars; figures for the protocol)
  report: Callable[[Rows, Sequence[Video]], tuple[dict[str, float], dict[str, Any]]]
  segments: bool = False  # whether `Frame.segments` is needed
  confidence: bool = False


class Parts(NamedTuple):
  """The parts of a frame. Every part has a pixel."""

  numbers: np.ndarray  # i64[H, W]: the part of each pixel
  classes: np.ndarray  # i64[K]; IGNORE: pixels without a class
  areas: np.ndarray  # i64[K], in pixels
  crowd: np.ndarray  # bool[K]


def predicted_parts(classes: np.ndarray, things: np.ndarray) -> Parts:
  """The parts of a prediction: an object is a connected region, with corners, of a class of `things`.

  Args:
    classes: uint8[H, W].
    things: bool[256]; False for IGNORE.
  """
  from skimage.measure import label

  own = things[classes]
  marked = np.where(own, classes.astype(np.int32) + 1, 0)
  objects = np.asarray(label(marked, background=0, connectivity=2), np.int64)
  kinds = np.zeros(objects.max() + 1, np.int64)
  kinds[objects] = classes
  numbers = np.where(own, objects + IGNORE, classes)  # the numbers of classes come before those of objects
  return _parts(numbers, np.concatenate([np.arange(IGNORE + 1), kinds[1:]]))


def true_parts(truth: np.ndarray, segments: np.ndarray, things: np.ndarray) -> Parts:
  """The parts of labels: an object is a segment of a class of `things`; other classes are whole.

  Args:
    truth: uint8[H, W], classes or IGNORE.
    segments: i32[H, W], as `segments.decode_segments`.
  """
  own = things[truth]
  keys, objects = np.unique(segments[own].astype(np.int64) * (IGNORE + 1) + truth[own], return_inverse=True)
  numbers = truth.astype(np.int64)
  numbers[own] = objects + IGNORE + 1
  crowd = np.concatenate([np.zeros(IGNORE + 1, bool), keys < 0])
  return _parts(numbers, np.concatenate([np.arange(IGNORE + 1), keys % (IGNORE + 1)]), crowd)


def _parts(numbers: np.ndarray, classes: np.ndarray, crowd: np.ndarray | None = None) -> Parts:
  """Renumbers the parts without those that have no pixel."""
  areas = np.bincount(numbers.ravel(), minlength=len(classes))
  there = areas > 0
  crowd = np.zeros(len(classes), bool) if crowd is None else crowd
  return Parts((np.cumsum(there) - 1)[numbers], classes[there], areas[there], crowd[there])


def table_of(names: Sequence[str], chosen: Sequence[str]) -> np.ndarray:
  """bool[256]: whether a class is one of the `chosen` names."""
  found = np.zeros(IGNORE + 1, bool)
  found[[names.index(name) for name in chosen]] = True
  return found


def of_video(rows: Rows, video: Video) -> np.ndarray:
  """The rows i64[T] of a video, in the order of its time."""
  mine = np.flatnonzero(rows["video"] == video.number)
  return mine[np.argsort(rows["index"][mine])]


def with_frozen(by_kind: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """Scalars: those of the adapted network by name, and those of the trained one with the end "_frozen"."""
  frozen = {f"{name}_frozen": value for name, value in by_kind["frozen"].items()}
  return {**by_kind["adapted"], **frozen}
