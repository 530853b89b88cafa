"""How a classifier of stills does on the frames of videos.

Frames of one video are not independent: means are taken over videos first, and intervals drawn over videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Right = Sequence[np.ndarray]  # for each video bool[T]: the class of the frame is right


class Interval(NamedTuple):
  """A figure in [0, 1] or a difference of two, with a bootstrap interval of 95%."""

  value: float
  low: float
  high: float


def frame_accuracy(right: Right) -> np.ndarray:
  """f64[V]: the accuracy over the frames of each video."""
  return np.array([of_video.mean() for of_video in right])


def pm_accuracy(right: Right, reach: int) -> np.ndarray:
  """f64[V]: whether the anchor, the frame in the middle of a video, and all frames within `reach` are right.

  With reach 0 it is the accuracy of the anchor.
  Source: Shankar et al. 2021, "Do image classifiers generalize across time?", section 3.
  """
  found = []
  for of_video in right:
    anchor = len(of_video) // 2
    found.append(of_video[max(anchor - reach, 0) : anchor + reach + 1].all())
  return np.array(found, np.float64)


def consistency(predicted: Sequence[np.ndarray]) -> np.ndarray:
  """f64[V]: the share of neighbouring frames with the same class; 1 for a video of one frame."""
  return np.array([(p[1:] == p[:-1]).mean() if len(p) > 1 else 1.0 for p in predicted])


def vote(predicted: np.ndarray, window: int, classes: int) -> np.ndarray:
  """i64[T]: the most frequent class of the latest `window` frames; of equal ones that of the latest frame."""
  counts = np.zeros((len(predicted) + 1, classes))
  counts[1:] = np.cumsum(np.eye(classes)[predicted], 0)
  moments = np.arange(len(predicted))
  votes = counts[1:] - counts[np.maximum(moments + 1 - window, 0)]
  votes[moments, predicted] += 0.5
  return votes.argmax(1)


def bootstrap(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Interval:
  """The mean of values by video, f64[V], with an interval over videos that are drawn with replacement."""
  rng = np.random.default_rng(seed)
  means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
  return Interval(float(values.mean()), *np.percentile(means, [2.5, 97.5]).tolist())


def drop(stills: np.ndarray, videos: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Interval:
  """The accuracy on stills minus that on videos, with an interval over both.

  Args:
    stills: bool[N]: whether the class of each still is right.
    videos: f64[V]: the frame accuracy of each video.
  """
  rng = np.random.default_rng(seed)
  of_stills = rng.binomial(len(stills), stills.mean(), draws) / len(stills)
  of_videos = videos[rng.integers(0, len(videos), (draws, len(videos)))].mean(1)
  value = float(stills.mean() - videos.mean())
  return Interval(value, *np.percentile(of_stills - of_videos, [2.5, 97.5]).tolist())
