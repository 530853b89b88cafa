"""What moves by itself: nothing in a still or panning clip, a sprite before a moving background, labels."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")
pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")

from ssl_jax.data.mask_values import IGNORE  # noqa: E402
from ssl_jax.video import camera, foreground  # noqa: E402
from tests.made_sprites import SIDE, background, frame, truth  # noqa: E402

RULES = foreground.Rules(0.6, 0.2)


@pytest.fixture(scope="module")
def flow():
  return foreground.dense_flow()


def grey(pixels: np.ndarray) -> np.ndarray:
  return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def test_a_pan_of_the_camera_is_not_motion(flow):
  wide = background(244, 160)
  first, second = wide[:, :240], wide[:, 4:]
  found = flow(grey(first), grey(second))
  assert np.abs(found[20:-20, 20:-20] - [-4, 0]).max() < 0.5
  # at the edge that the camera leaves, the second frame has no such pixel
  assert foreground.residual_length(found)[:, 8:].max() < 0.5


def test_a_still_clip_moves_nothing_and_is_rejected(flow):
  still = background(160, 120)
  score = foreground.motion_score(still, [still, still], 100, flow)
  assert score.shape == (120, 160) and score.dtype == np.float32 and score.max() < RULES.background
  assert foreground.label_pixels(score, RULES) == (
    pytest.approx(np.zeros((120, 160))),
    "frame where too little moves",
  )


@pytest.mark.parametrize("speed", [5, -5])
def test_a_sprite_before_a_panning_background_is_found(flow, speed):
  frames = [frame(5 + step, speed) for step in (0, -3, -1, 1, 3)]
  score = foreground.motion_score(frames[0], frames[1:], 400, flow)
  mask, reason = foreground.label_pixels(score, RULES)
  assert not reason and set(np.unique(mask)) == {0, 1, IGNORE}
  wanted = truth(5, speed)
  assert wanted.sum() == SIDE**2
  moving = mask == 1
  assert (moving & wanted).sum() / (moving | wanted).sum() > 0.8
  assert wanted[mask == 0].mean() < 0.01


def test_the_score_is_relative_to_the_fastest_and_averaged_over_superpixels(flow):
  first, other = frame(0, 5), frame(3, 5)
  plain = foreground.motion_score(first, [other], 0, flow)
  averaged = foreground.motion_score(first, [other], 200, flow)
  assert 0.9 < plain.max() <= 1 and plain.min() >= 0
  assert len(np.unique(averaged)) < 250 < len(np.unique(plain))
  assert abs(averaged.mean() - plain.mean()) < 1e-3


def scores(**rectangles: tuple[slice, slice]) -> np.ndarray:
  """A score f32[50, 100]: 0, with rectangles of other values, such as v80 for 0.8."""
  made = np.zeros((50, 100), np.float32)
  for value, place in rectangles.items():
    made[place] = int(value[1:]) / 100
  return made


def test_labels_by_hand():
  score = scores(v80=(slice(10, 30), slice(10, 40)), v90=(slice(35, 45), slice(60, 90)))
  score[2:5, 50:53], score[20:24, 70:80] = 1.0, 0.4
  mask, reason = foreground.label_pixels(score, RULES)
  assert not reason
  assert (mask[10:30, 10:40] == 1).all() and (mask[35:45, 60:90] == 1).all()
  assert (mask[2:5, 50:53] == IGNORE).all() and (mask[20:24, 70:80] == IGNORE).all()
  assert (mask == 1).sum() == 900 and (mask == 0).sum() == 5000 - 900 - 9 - 40
  one, _ = foreground.label_pixels(score, RULES._replace(components=1))
  assert (one == 1).sum() == 600 and (one[35:45, 60:90] == IGNORE).all()


@pytest.mark.parametrize(
  "score, reason",
  [
    (scores(v80=(slice(0, 5), slice(0, 10))), "frame where too little moves"),
    (scores(v80=(slice(0, 50), slice(0, 80))), "frame where too much moves"),
    (scores(v80=(slice(0, 20), slice(0, 70))), "frame where what moves is cut by the border"),
    (
      scores(v40=(slice(0, 50), slice(0, 100)), v80=(slice(10, 30), slice(10, 40))),
      "frame where it is doubtful what moves",
    ),
  ],
)
def test_frames_are_rejected_with_a_reason(score, reason):
  assert foreground.label_pixels(score, RULES)[1] == reason


def test_opencv_gets_its_threads_back():
  before = cv2.getNumThreads()
  with camera.one_thread():
    assert cv2.getNumThreads() == 1
  assert cv2.getNumThreads() == before
