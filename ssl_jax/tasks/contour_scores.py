"""The measures of DAVIS: the region similarity J and the contour accuracy F of what is not background."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.data.host import IGNORE
from ssl_jax.tasks.segmented_frame import Frame, Measure, Rows, of_video, with_frozen
from ssl_jax.tasks.streams import KINDS
from ssl_jax.tasks.video_streams import Video
from ssl_jax.video.index import check_installed

TOLERANCE = 0.008  # of the diagonal of the frame
RIGHT = 0.5  # a value above it counts for the recall
BINS = 4  # of a video, for the decay
_BACKGROUND = "background"


def make_measure(names: tuple[str, ...], things: tuple[str, ...]) -> Measure:
  """All classes but "background" are one object, as in DAVIS 2016; all labelled frames count.

  Scalars: "j_and_f", the mean of "j_mean" and "f_mean"; of each measure the mean, the recall (fraction of
  frames above 0.5) and the decay (mean of the first quarter minus mean of the last one), averaged over the
  videos.

  Raises: ValueError if no class is called "background"; ImportError without OpenCV.
  Source: Perazzi et al. 2016, section 4; TOLERANCE, and quarters that share their border frames, as in the
    code of the benchmark.
  """
  if _BACKGROUND not in names:
    raise ValueError(
      f"config.tasks.ttt_video.scores has 'davis', which needs a class {_BACKGROUND!r}, but the classes are "
      f"{', '.join(names[:5])}, ...; use config.data.name='davis', or leave the score out"
    )
  check_installed("cv2", "OpenCV", "config.tasks.ttt_video.scores='davis'")
  return Measure(functools.partial(_count, names.index(_BACKGROUND)), _report)


def _count(background: int, frame: Frame) -> dict[str, np.ndarray | bytes]:
  """{"davis": f64[3, 2]: J and F by KINDS}; nan for a frame without labels."""
  known = frame.truth != IGNORE
  if not known.any():
    return {"davis": np.full((len(KINDS), 2), np.nan)}
  truth = known & (frame.truth != background)
  found = [known & (predicted != background) for predicted in frame.predicted]
  return {"davis": np.array([(region_similarity(truth, one), contour_accuracy(truth, one)) for one in found])}


def region_similarity(truth: np.ndarray, found: np.ndarray) -> float:
  """J, the intersection over union of two masks bool[H, W]; 1 if both are empty."""
  union = (truth | found).sum()
  return float((truth & found).sum() / union) if union else 1.0


def contour_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
  """F, the harmonic mean of precision and recall of the contour of a mask bool[H, W].

  A pixel of one contour is right if one of the other is at most TOLERANCE of the diagonal away. Without
  pixels the precision, or the recall, is 1.
  """
  radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
  contours = contour(truth), contour(found)
  near = [_dilated(one, radius) for one in contours]
  share = lambda mine, other: (mine & other).sum() / mine.sum() if mine.any() else 1.0
  precision, recall = share(contours[1], near[0]), share(contours[0], near[1])
  return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def contour(mask: np.ndarray) -> np.ndarray:
  """bool[H, W]: the pixels that differ from the one on the right, below or diagonally below."""
  padded = np.pad(mask, (0, 1), mode="edge")
  right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
  return (mask != right) | (mask != below) | (mask != diagonal)


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
  import cv2

  place = np.arange(-radius, radius + 1)
  disk = place[:, None] ** 2 + place[None] ** 2 <= radius**2
  return cv2.dilate(mask.astype(np.uint8), disk.astype(np.uint8)).astype(bool)


def statistics(values: np.ndarray) -> tuple[float, float, float]:
  """(Mean, recall, decay) of the values f64[T] of a video."""
  borders = np.round(np.linspace(1, len(values), BINS + 1) + 1e-10).astype(int) - 1
  first, last = values[: borders[1] + 1], values[borders[-2] :]
  return float(values.mean()), float((values > RIGHT).mean()), float(first.mean() - last.mean())


def _report(rows: Rows, videos: Sequence[Video]) -> tuple[dict[str, float], dict[str, Any]]:
  by_video: dict[str, dict[str, dict[str, float]]] = {}
  for video in videos:
    values = rows["davis"][of_video(rows, video)]
    values = values[np.isfinite(values).all((1, 2))]
    if len(values):
      by_video[video.name] = {kind: _of_video(values[:, i]) for i, kind in enumerate(KINDS)}
  by_kind = {
    kind: {
      name: float(np.mean([found[kind][name] for found in by_video.values()]))
      for name in next(iter(by_video.values()))[kind]
    }
    for kind in KINDS
  }
  return with_frozen(by_kind), {"by_video": by_video, "tolerance": TOLERANCE}


def _of_video(values: np.ndarray) -> dict[str, float]:
  """Args: values: f64[T, 2]."""
  (j_mean, j_recall, j_decay), (f_mean, f_recall, f_decay) = map(statistics, values.T)
  return {
    "j_and_f": (j_mean + f_mean) / 2,
    "j_mean": j_mean,
    "j_recall": j_recall,
    "j_decay": j_decay,
    "f_mean": f_mean,
    "f_recall": f_recall,
    "f_decay": f_decay,
  }
