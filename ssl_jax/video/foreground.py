"""What moves by itself in a frame: residual motion against the camera's, and the labels made of it, by OpenCV
and scikit-image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from skimage.segmentation import slic

from ssl_jax.data.mask_values import IGNORE
from ssl_jax.video.camera import Points, fit_camera, residual

LEAST = 32  # pixels that a side of a frame needs for the flow and the grid
_GRID = 16  # pixels between the points that the camera's motion is fitted to
_SLOWEST = 1.0  # pixels: residual motion below it never becomes a score of 1, however little else moves
_MOST = 99  # percentile of the residual motion that becomes a score of 1; a few wild vectors do not count
_MEDIAN = 5  # pixels of the square over which the score is filtered
_ITERATIONS = 5  # of k-means over the superpixels; ten, the usual number, take longer and change little
_BLUR = 1.0  # standard deviation in pixels of the blur before it

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Rules(NamedTuple):
  """How a score becomes labels, and which frames are rejected."""

  foreground: float  # scores above it move
  background: float  # scores below it do not
  components: int = 2  # connected regions that are kept, the largest first
  least: float = 0.02  # fraction of the frame that the moving part covers at least
  most: float = 0.7  # and at most
  border: float = 0.25  # fraction of the frame's outermost pixels that the moving part covers at most
  doubtful: float = 0.6  # fraction of the frame that is neither the one nor the other at most


def dense_flow() -> Flow:
  """Returns a function (grey frame uint8[H, W], another one) -> f32[H, W, 2]: where each pixel of the first
  frame is found in the second, (x, y) in pixels from its own place.

  Source: Kroeger et al. 2016 (DIS), at OpenCV's medium preset.
  """
  flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # pyright: ignore[reportAttributeAccessIssue]
  return lambda first, second: flow.calc(first, second, None)


def motion_score(frame: np.ndarray, others: Sequence[np.ndarray], segments: int, flow: Flow) -> np.ndarray:
  """f32[H, W] in [0, 1]: how much each pixel of a frame moves by itself.

  The mean over `others` of the residual motion in proportion to the frame's fastest, then over superpixels.

  Args:
    frame: uint8[H, W, 3].
    others: frames uint8[H, W, 3] before or after it.
    segments: number of superpixels; 0: none.
  """
  grey, *rest = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in (frame, *others))
  total = functools.reduce(np.add, (_relative(residual_length(flow(grey, other))) for other in rest))
  score = total / np.float32(len(rest))
  return _over_segments(score, frame, segments) if segments else score


def residual_length(flow: np.ndarray) -> np.ndarray:
  """f32[H, W] in pixels: the length of a flow f32[H, W, 2] without the camera's motion.

  Where the flow has no camera's motion, which a homography describes, everything counts as the camera's.
  """
  height, width = flow.shape[:2]
  y, x = np.mgrid[:height, :width]
  places = np.stack([x, y], -1).astype(np.float32)
  grid = slice(_GRID // 2, None, _GRID)
  first = places[grid, grid].reshape(-1, 2)
  camera = fit_camera(Points(first, first + flow[grid, grid].reshape(-1, 2)))
  if camera is None:
    return np.zeros((height, width), np.float32)
  moved = residual(Points(places.reshape(-1, 2), (places + flow).reshape(-1, 2)), camera)
  return np.hypot(moved[:, 0], moved[:, 1]).reshape(height, width)


def _relative(length: np.ndarray) -> np.ndarray:
  most = max(_SLOWEST, float(np.percentile(length, _MOST)))
  return cv2.medianBlur(np.minimum(length / np.float32(most), 1), _MEDIAN)


def _over_segments(score: np.ndarray, frame: np.ndarray, segments: int) -> np.ndarray:
  """The mean of a score f32[H, W] over each superpixel of the frame, found at half of its resolution."""
  height, width = score.shape
  small = cv2.resize(frame, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)
  places = slic(small, n_segments=segments, max_num_iter=_ITERATIONS, sigma=_BLUR, start_label=0)
  places = places.repeat(2, 0).repeat(2, 1)[:height, :width]
  flat = places.ravel()
  means = np.bincount(flat, score.ravel()) / np.maximum(np.bincount(flat), 1)
  return means.astype(np.float32)[places]


def label_pixels(score: np.ndarray, rules: Rules) -> tuple[np.ndarray, str]:
  """Labels the pixels of a frame by their score f32[H, W].

  Returns: (uint8[H, W]: 1 moving, 0 not, IGNORE doubtful; why the frame is rejected, "" if it is not).
    Regions that move, but are not among the largest, are doubtful.
  """
  moving = _largest(score > rules.foreground, rules.components)
  mask = np.where(moving, 1, np.where(score < rules.background, 0, IGNORE)).astype(np.uint8)
  area = moving.mean()
  edge = np.concatenate([moving[0], moving[-1], moving[1:-1, 0], moving[1:-1, -1]])
  reasons = (
    ("frame where too little moves", area < rules.least),
    ("frame where too much moves", area > rules.most),
    ("frame where what moves is cut by the border", edge.mean() > rules.border),
    ("frame where it is doubtful what moves", (mask == IGNORE).mean() > rules.doubtful),
  )
  return mask, next((reason for reason, holds in reasons if holds), "")


def _largest(mask: np.ndarray, count: int) -> np.ndarray:
  """bool[H, W]: the largest connected regions of a mask bool[H, W]."""
  _, places, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
  areas = statistics[1:, cv2.CC_STAT_AREA]  # 0 is what the mask leaves out
  kept = 1 + np.argsort(-areas, kind="stable")[:count]
  return np.isin(places, kept)
