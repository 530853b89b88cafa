"""Panoptic quality of a semantic segmenter, whose objects are the connected regions of a class.

The counting is our own: a frame must leave sums by class, so that a stopped run resumes with few bytes, and
the libraries take whole data sets.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.data.host import IGNORE
from ssl_jax.tasks.segmented_frame import (
  Frame,
  Measure,
  Parts,
  Rows,
  of_video,
  predicted_parts,
  table_of,
  true_parts,
  with_frozen,
)
from ssl_jax.tasks.streams import KINDS
from ssl_jax.tasks.video_streams import Video
from ssl_jax.video.index import check_installed

OVERLAP = 0.5  # a match has a larger intersection over union
VOID = 0.5  # a prediction of which a larger fraction is void, or crowd of its class, is not counted as wrong


def make_measure(names: tuple[str, ...], things: tuple[str, ...]) -> Measure:
  """Panoptic quality: all frames are counted together, then averaged over the classes that occur.

  Scalars: "pq" and its factors "sq" (the mean overlap of matches) and "rq" (the F1 score of segments), and
  "pq_things" and "pq_stuff" of the classes with and without objects.

  Raises: ImportError without scikit-image.
  Source: Kirillov et al. 2019, section 4; pixels without a class and crowds as in COCO's evaluation.
  """
  check_installed("skimage", "scikit-image", "config.tasks.ttt_video.scores='panoptic'")
  table = table_of(names, things)
  return Measure(
    functools.partial(_count, table, len(names)), functools.partial(_report, names, table), segments=True
  )


def _count(things: np.ndarray, classes: int, frame: Frame) -> dict[str, np.ndarray | bytes]:
  """{"panoptic": f32[3, 4, C]: by KINDS and class the sum of overlaps, and the numbers of matches, of
  predictions that are wrong, and of segments that are missed}."""
  assert frame.segments is not None
  if (frame.truth == IGNORE).all():  # nothing counts there
    return {"panoptic": np.zeros((len(KINDS), 4, classes), np.float32)}
  truth = true_parts(frame.truth, frame.segments, things)
  found = [match(truth, predicted_parts(one, things))[:, :classes] for one in frame.predicted]
  return {"panoptic": np.stack(found).astype(np.float32)}


def match(truth: Parts, found: Parts) -> np.ndarray:
  """Counts the parts of a frame by class: f64[4, 256], as `_count` keeps them."""
  shape = len(truth.areas), len(found.areas)
  pairs = truth.numbers.ravel() * shape[1] + found.numbers.ravel()
  shared = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
  void = shared[truth.classes == IGNORE].sum(0)
  real = (truth.classes != IGNORE) & ~truth.crowd
  same = truth.classes[:, None] == found.classes[None]
  overlap = shared / (truth.areas[:, None] + (found.areas - void)[None] - shared).clip(1)
  matches = same & real[:, None] & (overlap > OVERLAP)  # of a part at most one
  crowd = (shared * (same & truth.crowd[:, None])).sum(0)
  wrong = ~matches.any(0) & ((void + crowd) / found.areas <= VOID)
  missed = real & ~matches.any(1)
  count = functools.partial(np.bincount, minlength=IGNORE + 1)
  rows, columns = np.nonzero(matches)
  return np.stack(
    [
      count(truth.classes[rows], overlap[rows, columns]),
      count(truth.classes[rows]),
      count(found.classes[wrong]),
      count(truth.classes[missed]),
    ]
  )


def quality(counts: np.ndarray) -> np.ndarray:
  """PQ, SQ and RQ by class, f64[3, C], of counts [4, C]; nan for classes that occur nowhere."""
  total, right, wrong, missed = counts.astype(np.float64)
  present = right + wrong + missed > 0
  size = np.where(present, right + 0.5 * wrong + 0.5 * missed, np.nan)
  found = np.stack([total / size, total / np.maximum(right, 1), right / size])
  return np.where(present, found, np.nan)


def _report(
  names: tuple[str, ...], things: np.ndarray, rows: Rows, videos: Sequence[Video]
) -> tuple[dict[str, float], dict[str, Any]]:
  counts = rows["panoptic"].astype(np.float64)  # [N, 3, 4, C]
  own = things[: len(names)]
  total = counts.sum(0)
  by_kind = {kind: _scalars(total[i], own) for i, kind in enumerate(KINDS)}
  of_class = quality(total[0])[0]
  details = {
    "before": by_kind["before"],
    "by_class": {name: float(value) for name, value in zip(names, of_class) if np.isfinite(value)},
    "by_video": {
      video.name: {
        kind: _scalars(counts[of_video(rows, video), i].sum(0), own)["pq"] for i, kind in enumerate(KINDS)
      }
      for video in videos
    },
    "things": [name for name, thing in zip(names, own) if thing],
    "objects": "connected regions",
  }
  return with_frozen(by_kind), details


def _scalars(counts: np.ndarray, things: np.ndarray) -> dict[str, float]:
  pq, sq, rq = quality(counts)
  mean = lambda values: float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0
  return {
    "pq": mean(pq),
    "sq": mean(sq),
    "rq": mean(rq),
    "pq_things": mean(pq[things]),
    "pq_stuff": mean(pq[~things]),
  }
