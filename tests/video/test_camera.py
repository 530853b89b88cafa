"""The motion of the camera, and what is left of the motion of points without it."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

from ssl_jax.video.camera import Points, fit_camera, residual  # noqa: E402


def test_a_turn_of_the_camera_is_found_beside_points_that_move():
  rng = np.random.default_rng(0)
  first = rng.uniform(0, 200, (200, 2)).astype(np.float32)
  turn = np.array([[0.99, -0.05, 4.0], [0.05, 0.99, -3.0], [1e-5, 2e-5, 1.0]])
  second = cv2.perspectiveTransform(first[None].astype(np.float64), turn)[0].astype(np.float32)
  moving = np.arange(200) < 80
  second[moving] += np.float32([12, 5])
  found = fit_camera(Points(first, second))
  assert found is not None and np.abs(found - turn).max() < 1e-2
  left = residual(Points(first, second), found)
  assert np.abs(left[~moving]).max() < 0.1 and np.abs(left[moving] - [12, 5]).max() < 0.2
  assert (fit_camera(Points(first, second)) == found).all()


def test_too_few_points_have_no_camera():
  few = np.zeros((3, 2), np.float32)
  assert fit_camera(Points(few, few)) is None
  assert residual(Points(few[:0], few[:0]), np.eye(3)).shape == (0, 2)
