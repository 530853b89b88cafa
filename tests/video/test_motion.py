"""Motion from frame to frame: a moving square, a pan, a still clip with noise, a cut."""

import numpy as np
import pytest

from ssl_jax.video.motion import coarse_flow, measure_motion


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
  """f32[height, width] in [0, 1]: a sum of waves of many lengths."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width].astype(np.float32)
  total = np.zeros((height, width), np.float32)
  for length in (9, 13, 20, 31, 50):
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    total += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase, dtype=np.float32)
  return (total - total.min()) / np.ptp(total)


def shown(grey: np.ndarray) -> np.ndarray:
  return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-2, 3)])
def test_a_pan_is_found_everywhere(shift):
  x, y = shift
  world = texture(80, 120)
  first, second = world[10:58, 10:95], world[10 - y : 58 - y, 10 - x : 95 - x]
  flow = coarse_flow(first, second)
  assert np.median(np.abs(flow - np.float32(shift)).max(-1)) < 0.4


def test_what_moves_is_found_where_it_is():
  world, square = texture(48, 85), texture(20, 20, 1)
  frames = [world.copy() for _ in range(2)]
  for i, frame in enumerate(frames):
    frame[14:34, 30 + 2 * i : 50 + 2 * i] = square
  length = np.hypot(*coarse_flow(*frames).transpose(2, 0, 1))
  assert np.median(length[18:30, 34:46]) == pytest.approx(2, abs=0.2)
  assert np.median(length[:, :15]) < 0.05 and np.median(length[:, 65:]) < 0.05


def test_noise_moves_little_and_a_cut_is_no_motion():
  rng = np.random.default_rng(0)
  world = texture(80, 120)
  noisy = [np.clip(world[10:58, 10:95] + rng.normal(0, 0.01, (48, 85)), 0, 1) for _ in range(4)]
  moving = [world[10:58, 10 + i : 95 + i] for i in range(4)]
  other = texture(48, 85, 7)
  still, panned, cut = (measure_motion(map(shown, clip)) for clip in (noisy, moving, [moving[0], other]))
  assert still.amounts.shape == (3,) and not still.cuts.any() and not panned.cuts.any()
  assert panned.amounts == pytest.approx(1 / 85, rel=0.1)
  assert still.amounts.max() < 0.15 / 85
  assert cut.cuts.tolist() == [True]


def test_one_frame_has_no_motion():
  found = measure_motion([np.zeros((48, 85, 3), np.uint8)])
  assert found.amounts.shape == (0,) and found.cuts.shape == (0,)
