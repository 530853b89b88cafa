"""The correlation filter: a textured square is followed, and what is in no frame is lost."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

from ssl_jax.video import correlation_filter  # noqa: E402

SIDE = 60


def textured(rng: np.random.Generator, height: int, width: int, blur: float) -> np.ndarray:
  """uint8[height, width]."""
  return cv2.GaussianBlur(rng.integers(0, 256, (height, width)).astype(np.uint8), (0, 0), blur)


@pytest.fixture(scope="module")
def scene():
  """Number of the frame -> (frame, box of the square)."""
  rng = np.random.default_rng(0)
  background, sprite = textured(rng, 240, 400, 3), textured(rng, SIDE, SIDE, 2)

  def scene(number: int):
    left, top = 100 + 3 * number, 80 + number
    frame = background.copy()
    frame[top : top + SIDE, left : left + SIDE] = sprite
    return frame, np.array([left, top, left + SIDE, top + SIDE], np.float32)

  return scene


def overlap(one: np.ndarray, other: np.ndarray) -> float:
  """Intersection over union of two boxes."""
  sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
  both = sides.clip(0).prod()
  return both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)


def followed(scene, features="hog"):
  tracker, found = correlation_filter.start(*scene(0), features), []
  for number in range(1, 31):
    tracker, sharpness = correlation_filter.follow(tracker, scene(number)[0])
    found.append(sharpness)
  return tracker, np.array(found)


@pytest.mark.parametrize("features", ["hog", "pixels"])
def test_a_moving_square_is_followed_for_thirty_frames(scene, features):
  tracker, sharpness = followed(scene, features)
  assert overlap(tracker.box, scene(30)[1]) > 0.85
  assert sharpness.min() > (15 if features == "hog" else 2)


def test_the_response_falls_where_the_square_is_not(scene):
  tracker, sharpness = followed(scene)
  others = [
    correlation_filter.follow(tracker, textured(np.random.default_rng(i), 240, 400, 3))[1] for i in (1, 2)
  ]
  assert sharpness.min() > 15 > 7 > max(others)


def test_a_box_at_the_edge_and_of_an_odd_shape_is_followed(scene):
  """The window extends beyond the frame, and the box is no square."""
  frame, _ = scene(0)
  box = np.array([0, 5, 81, 45], np.float32)
  tracker = correlation_filter.start(frame, box)
  moved = np.roll(frame, (4, 6), (0, 1))
  tracker, _ = correlation_filter.follow(tracker, moved)
  np.testing.assert_allclose(tracker.box, box + [6, 4, 6, 4], atol=2.5)
  still, sharpness = correlation_filter.follow(correlation_filter.start(frame, box), frame)
  np.testing.assert_allclose(still.box, box, atol=1)
  assert sharpness > 15


def test_an_even_picture_gives_finite_numbers():
  frame = np.full((80, 80), 90, np.uint8)
  for features in ("hog", "pixels"):
    tracker = correlation_filter.start(frame, np.array([20, 20, 50, 50], np.float32), features)
    tracker, sharpness = correlation_filter.follow(tracker, frame)
    assert np.isfinite(tracker.box).all() and np.isfinite(sharpness)
