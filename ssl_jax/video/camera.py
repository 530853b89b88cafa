"""Separates what moves in a clip from what the camera moves, with OpenCV.

Points are (x, y) in pixels; those of the second frame are where the points of the first one are found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

INLIER = 3.0  # pixels from the camera's motion within which a point may be at rest
_LEAST = 4  # points that a homography needs


class Points(NamedTuple):
  """Points of a frame and where they are in another one."""

  first: np.ndarray  # f32[N, 2]
  second: np.ndarray  # f32[N, 2]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
  """OpenCV computes with one thread meanwhile: every core has a worker process of its own."""
  before = cv2.getNumThreads()
  cv2.setNumThreads(1)
  try:
    yield
  finally:
    cv2.setNumThreads(before)


def fit_camera(points: Points) -> np.ndarray | None:
  """The homography f64[3, 3] from the first frame to the second that most points follow; None: there is none.

  Source: RANSAC, whose random numbers OpenCV starts anew in each call, so that the result is reproducible.
  """
  if len(points.first) < _LEAST:
    return None
  return cv2.findHomography(points.first, points.second, cv2.RANSAC, INLIER)[0]


def residual(points: Points, camera: np.ndarray) -> np.ndarray:
  """f32[N, 2]: how far each point is from where the homography f64[3, 3] takes it, in pixels."""
  if not len(points.first):
    return np.zeros((0, 2), np.float32)
  moved = cv2.perspectiveTransform(points.first[None].astype(np.float64), camera)[0]
  return (points.second - moved).astype(np.float32)
