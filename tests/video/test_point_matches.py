"""Corners that are found again in the next frame."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

from ssl_jax.video.point_matches import MOST, match_points  # noqa: E402

RNG = np.random.default_rng(0)
FRAME = cv2.GaussianBlur(RNG.integers(0, 256, (160, 200)).astype(np.uint8), (0, 0), 2)


def test_corners_move_as_the_frame_does():
  points = match_points(FRAME, np.roll(FRAME, (3, -7), (0, 1)))
  assert 200 < len(points.first) <= MOST and points.first.dtype == np.float32
  inner = (np.abs(points.first - [100, 80]) < [70, 60]).all(1)
  np.testing.assert_allclose((points.second - points.first)[inner], [[-7, 3]] * inner.sum(), atol=0.2)


def test_corners_that_vanish_are_left_out():
  after = FRAME.copy()
  after[:, 100:] = cv2.GaussianBlur(RNG.integers(0, 256, (160, 100)).astype(np.uint8), (0, 0), 2)
  before, kept = (match_points(FRAME, other).first[:, 0] for other in (FRAME, after))
  assert (kept > 120).sum() < 0.4 * (before > 120).sum() and (kept < 80).sum() > 0.9 * (before < 80).sum()


def test_a_frame_without_corners_has_no_points():
  even = np.full((60, 60), 100, np.uint8)
  assert match_points(even, even).first.shape == (0, 2)
