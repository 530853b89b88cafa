"""Follows corners from one frame to the next, with OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from ssl_jax.video.camera import Points

MOST = 1000  # corners
_QUALITY = 0.01  # of the worst corner over that of the best
_APART = 5  # pixels between corners
_WINDOW = (21, 21)  # pixels around a corner that must look alike
_LEVELS = 3  # of the pyramid beside the frame itself
_RETURN = 1.0  # pixels within which a corner must come back to where it was


def match_points(first: np.ndarray, second: np.ndarray) -> Points:
  """Finds corners of a frame in the next one: those that are found again on the way back.

  Args:
    first, second: uint8[H, W], grey.
  Source: Shi and Tomasi 1994; Lucas and Kanade 1981 on pyramids (Bouguet 2000); Kalal et al. 2010 for the way
    back.
  """
  corners = cv2.goodFeaturesToTrack(first, MOST, _QUALITY, _APART)
  if corners is None or not len(corners):
    return Points(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))
  options = {"winSize": _WINDOW, "maxLevel": _LEVELS}
  corners = corners.astype(np.float32)
  there, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty_like(corners), **options)
  back, returned, _ = cv2.calcOpticalFlowPyrLK(second, first, there, np.empty_like(corners), **options)
  error = np.linalg.norm((back - corners).reshape(-1, 2), axis=1)
  kept = (found.ravel() == 1) & (returned.ravel() == 1) & (error < _RETURN)
  return Points(corners.reshape(-1, 2)[kept], there.reshape(-1, 2)[kept])
