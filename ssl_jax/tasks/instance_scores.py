"""Average precision of the objects that a semantic segmenter finds: the connected regions of a class."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.data import instance_masks
from ssl_jax.data.host import IGNORE
from ssl_jax.data.instance_masks import EncodedMask
from ssl_jax.data.objects import Objects
from ssl_jax.tasks.detection_scores import MAX_DETECTIONS, Detected, coco_library, coco_scores
from ssl_jax.tasks.segmented_frame import (
  Frame,
  Measure,
  Parts,
  Rows,
  predicted_parts,
  table_of,
  true_parts,
  with_frozen,
)
from ssl_jax.tasks.stream_rows import split_rows
from ssl_jax.tasks.streams import KINDS
from ssl_jax.tasks.video_streams import Video
from ssl_jax.video.index import check_installed

ROWS = "instances"


def make_measure(names: tuple[str, ...], things: tuple[str, ...]) -> Measure:
  """COCO's average precision of masks, over the labelled frames of all videos.

  The score of an object is the mean probability of its class over its pixels. Pixels without a class are cut
  off predictions. Of a frame, the 100 objects of the highest score count in each class.

  Scalars: "mask_ap", "mask_ap50" and "mask_ap75".

  Raises: ImportError without scikit-image or faster-coco-eval.
  Source: Lin et al. 2014.
  """
  check_installed("skimage", "scikit-image", "config.tasks.ttt_video.scores='instances'")
  coco_library()  # now, rather than after all videos
  return Measure(
    functools.partial(_count, table_of(names, things)),
    functools.partial(_report, names),
    segments=True,
    confidence=True,
  )


def _count(things: np.ndarray, frame: Frame) -> dict[str, np.ndarray | bytes]:
  """{ROWS: the objects of the labels and those of KINDS, compressed}; b"" for a frame without labels."""
  assert frame.segments is not None and frame.confidence is not None
  known = frame.truth != IGNORE
  if not known.any():
    return {ROWS: b""}
  truth = true_parts(frame.truth, frame.segments, things)
  objects = np.flatnonzero(things[truth.classes])  # pixels without a class are none
  kept: dict[str, Any] = {
    "size": frame.truth.shape,
    "truth": list(zip(truth.classes[objects].tolist(), truth.crowd[objects].tolist(), _runs(truth, objects))),
  }
  for kind, classes, confidence in zip(KINDS, frame.predicted, frame.confidence):
    kept[kind] = _detected(np.where(known, classes, IGNORE).astype(np.uint8), confidence, things)
  return {ROWS: zlib.compress(json.dumps(kept).encode())}


def _detected(
  classes: np.ndarray, confidence: np.ndarray, things: np.ndarray
) -> list[tuple[int, float, str]]:
  """(Class, score, run lengths) of the objects of a prediction uint8[H, W]."""
  parts = predicted_parts(classes, things)
  scores = np.bincount(parts.numbers.ravel(), confidence.astype(np.float64).ravel()) / parts.areas
  chosen = []
  for kind in np.unique(parts.classes[things[parts.classes]]):
    objects = np.flatnonzero(parts.classes == kind)
    best = objects[np.argsort(-scores[objects], kind="stable")[:MAX_DETECTIONS]]
    chosen.append(best)
  best = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
  return list(zip(parts.classes[best].tolist(), scores[best].tolist(), _runs(parts, best)))


def _runs(parts: Parts, chosen: np.ndarray) -> list[str]:
  return [mask.counts.decode() for mask in instance_masks.from_numbers(parts.numbers, chosen.tolist())]


def _report(
  names: tuple[str, ...], rows: Rows, videos: Sequence[Video]
) -> tuple[dict[str, float], dict[str, Any]]:
  frames = [json.loads(zlib.decompress(bytes(row))) for row in split_rows(rows, ROWS) if len(row)]
  truths = [_objects(frame) for frame in frames]
  by_kind, of_class = {}, {}
  for kind in KINDS:
    found = coco_scores(truths, [_found(frame, kind) for frame in frames], len(names), kind="mask")
    by_kind[kind] = {"mask_ap": found.ap, "mask_ap50": found.ap50, "mask_ap75": found.ap75}
    of_class[kind] = {n: float(ap) for n, ap in zip(names, found.by_class) if np.isfinite(ap)}
  details = {"before": by_kind["before"], "by_class": of_class["adapted"], "objects": "connected regions"}
  return with_frozen(by_kind), details


def _objects(frame: dict) -> Objects:
  classes, crowd, runs = zip(*frame["truth"]) if frame["truth"] else ((), (), ())
  masks = _masks(frame, runs)
  areas = np.array([_area(mask) for mask in masks], np.float64)
  boxes = np.zeros((len(masks), 4), np.float32)  # masks alone are compared
  crowd = np.array(crowd, bool)
  return Objects(boxes, np.array(classes, np.int32), crowd, np.zeros(len(masks), bool), areas, masks)


def _found(frame: dict, kind: str) -> Detected:
  classes, scores, runs = zip(*frame[kind]) if frame[kind] else ((), (), ())
  boxes = np.zeros((len(runs), 4), np.float32)
  return Detected(boxes, np.array(classes, np.int32), np.array(scores, np.float32), _masks(frame, runs))


def _masks(frame: dict, runs: Sequence[str]) -> tuple[EncodedMask, ...]:
  return tuple(EncodedMask(*frame["size"], counts=one.encode()) for one in runs)


def _area(mask: EncodedMask) -> int:
  return int(instance_masks.decompress(mask.counts)[1::2].sum())
