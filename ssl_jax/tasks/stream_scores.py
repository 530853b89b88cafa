"""Scores of the frames of streams, with partial results that survive an interruption."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.data.host import IGNORE
from ssl_jax.metrics import standard_error
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.video_streams import Video

KINDS = ("adapted", "before", "frozen")  # whose predictions are scored, in this order
_CLASSES = 256


class FrameScores:
  """What was counted so far on each frame, and the parameters of the streams that run.

  `intersection`, `predicted` and `truth` are counts of pixels by class.
  """

  def __init__(self, kept: PartialResults, identity: dict, save_every: float):
    self._kept, self._identity, self._every = kept, identity, save_every
    found = kept.load(identity)
    streams = sorted(name for name in found if name.startswith("stream/"))
    self.stream: list[np.ndarray] = [found.pop(name) for name in streams]
    self._rows: dict[str, list[np.ndarray]] = {name: list(rows) for name, rows in found.items()}
    self._saved, self._seconds, self._timed = time.monotonic(), 0.0, 0

  def count(self) -> int:
    """The number of frames that have a result."""
    return len(self._rows.get("video", ()))

  def done(self, video: int) -> int:
    """The number of frames of a video that have a result."""
    return int(np.sum(np.array(self._rows.get("video", []), int) == video))

  def add(
    self,
    video: int,
    moment: int,
    position: int,
    truth: np.ndarray,
    predicted: np.ndarray,
    losses: np.ndarray,
    diverged: bool,
  ) -> None:
    """Counts the pixels of a frame.

    Args:
      video, moment: the number of the video, and of the frame in its stream.
      position: of the frame in the test split.
      truth: uint8[H, W], classes or IGNORE.
      predicted: uint8[3, H, W], the predictions of KINDS.
      losses: f32[steps] of the frame's adaptation.
    """
    known = truth != IGNORE
    tally = lambda values: np.bincount(values, minlength=_CLASSES)
    right = [tally(truth[known & (found == truth)]) for found in predicted]
    row = {
      "video": video,
      "moment": moment,
      "index": position,
      "truth": tally(truth[known]),
      "intersection": np.stack(right),
      "predicted": np.stack([tally(found[known]) for found in predicted]),
      "loss": losses[-1] if len(losses) else np.float32(np.nan),
      "diverged": diverged,
    }
    for name, value in row.items():
      self._rows.setdefault(name, []).append(np.asarray(value))

  def lap(self, seconds: float, frames: int, *, first: bool) -> None:
    """Counts the time of frames; that of the first, which compiles, is left out."""
    if not first:
      self._seconds, self._timed = self._seconds + seconds, self._timed + frames

  def milliseconds(self) -> float:
    """The mean time of a frame."""
    return 1000 * self._seconds / max(self._timed, 1)

  def save(self, *, now: bool) -> None:
    """Saves what there is if `now` is True, or if the last save is long ago."""
    if now or time.monotonic() - self._saved > self._every:
      streams = {f"stream/{i:05}": leaf for i, leaf in enumerate(self.stream)}
      self._kept.save(self._identity, {**self.arrays(), **streams})
      self._saved = time.monotonic()

  def arrays(self) -> dict[str, np.ndarray]:
    """All rows, stacked."""
    return {name: np.stack(rows) for name, rows in self._rows.items()}

  def over_time(self, videos: Sequence[Video]) -> dict[str, dict[str, np.ndarray]]:
    """The score of every frame by video and kind, f64[T] in the order of the stream."""
    rows = self.arrays()
    by_frame = frame_iou(rows["truth"][:, None], rows["intersection"], rows["predicted"])
    found = {}
    for video in videos:
      mine = np.flatnonzero(rows["video"] == video.number)
      ordered = by_frame[mine[np.argsort(rows["moment"][mine])]]
      found[video.name] = dict(zip(KINDS, ordered.T))
    return found


def frame_iou(truth: np.ndarray, intersection: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """f64[...]: the mean intersection over union over the classes that are present in the truth.

  Args:
    truth, intersection, predicted: counts of pixels by class, [..., C].
  Returns: NaN where no pixel has a class.
  Source: the evaluation of Wang et al. 2023 on KITTI-STEP.
  """
  union = truth + predicted - intersection
  iou = np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)
  present = (truth > 0) & np.ones(union.shape, bool)
  count = present.sum(-1)
  total = (iou * present).sum(-1)
  return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def report(
  scores: FrameScores, videos: Sequence[Video], block: int
) -> tuple[dict[str, float], dict[str, Any]]:
  """Returns (the scalars, the figures of each video for the protocol)."""
  rows = scores.arrays()
  truth = rows["truth"][:, None]
  by_frame = frame_iou(truth, rows["intersection"], rows["predicted"])  # [N, 3]
  known = np.isfinite(by_frame[:, 0])
  adapted, before, frozen = by_frame[known].T
  # A block never spans two videos.
  groups = rows["video"][known] * (rows["moment"].max() // block + 1) + rows["moment"][known] // block
  total = frame_iou(*(rows[name].sum(0) for name in ("truth", "intersection", "predicted")))
  scalars = {
    "miou": float(adapted.mean()),
    "miou_frozen": float(frozen.mean()),
    "gain": float((adapted - frozen).mean()),
    "miou_before": float(before.mean()),
    "total_miou": float(total[0]),
    "total_miou_frozen": float(total[2]),
    "diverged": float(rows["diverged"].mean()),
  }
  details = {
    "standard_error": {
      "miou": standard_error(adapted, groups),
      "miou_frozen": standard_error(frozen, groups),
      "gain": standard_error(adapted - frozen, groups),
    },
    "by_video": {
      video.name: dict(zip(KINDS, by_frame[known & (rows["video"] == video.number)].mean(0).tolist()))
      for video in videos
    },
    "test_rows": len(known),
  }
  return scalars, details
