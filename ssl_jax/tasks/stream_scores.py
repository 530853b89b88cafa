"""Scores of the segmentation of the frames of streams: the mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.data.host import IGNORE
from ssl_jax.metrics import standard_error
from ssl_jax.tasks.segmented_frame import Rows
from ssl_jax.tasks.streams import KINDS
from ssl_jax.tasks.video_streams import Video

_CLASSES = 256


def count_pixels(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
  """Counts of the pixels of a frame by class: "truth" i64[256], "intersection" and "predicted" i64[3, 256].

  Args:
    truth: uint8[H, W], classes or IGNORE.
    predicted: uint8[3, H, W], the predictions of KINDS.
  """
  known = truth != IGNORE
  tally = lambda values: np.bincount(values, minlength=_CLASSES)
  return {
    "truth": tally(truth[known]),
    "intersection": np.stack([tally(truth[known & (found == truth)]) for found in predicted]),
    "predicted": np.stack([tally(found[known]) for found in predicted]),
  }


def over_time(rows: Rows, videos: Sequence[Video]) -> dict[str, dict[str, np.ndarray]]:
  """The score of every frame by video and kind, f64[T] in the order of the stream."""
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


def report(rows: Rows, videos: Sequence[Video], block: int) -> tuple[dict[str, float], dict[str, Any]]:
  """Returns (the scalars, the figures of each video for the protocol).

  Frames without labels do not count, and videos without labelled frames have no figures.

  Raises: ValueError if no frame has labels.
  """
  truth = rows["truth"][:, None]
  by_frame = frame_iou(truth, rows["intersection"], rows["predicted"])  # [N, 3]
  known = np.isfinite(by_frame[:, 0])
  if not known.any():
    raise ValueError(f"task 'ttt_video': not one of the {len(known)} test frames has a pixel with a class")
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
  if "reset" in rows:
    scalars["resets"] = float(rows["reset"].mean())
  details = {
    "standard_error": {
      "miou": standard_error(adapted, groups),
      "miou_frozen": standard_error(frozen, groups),
      "gain": standard_error(adapted - frozen, groups),
    },
    "by_video": {
      video.name: dict(zip(KINDS, by_frame[mine].mean(0).tolist()))
      for video in videos
      if (mine := known & (rows["video"] == video.number)).any()
    },
    "test_rows": len(known),
    "labelled_rows": int(known.sum()),
  }
  if "reset" in rows:
    details["resets"] = {v.name: int(rows["reset"][rows["video"] == v.number].sum()) for v in videos}
  return scalars, details
