"""How much moves from each frame of a clip to the next, by a coarse optical flow of its own in NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Pixels of the sides of the frames that are compared: of the longer one, a quarter of the 340 of stored
# frames, and of the shorter one at least.
LONGEST, LEAST = 85, 8
# Mean difference that the flow leaves, of values in [0, 1], from which on two frames are of two shots.
CUT = 0.12
_LEVELS = 3  # of the pyramid of halved frames: motion of up to about 4 pixels is found
_ITERATIONS = 3  # on each level
_WINDOW = 7  # pixels of the square whose pixels are taken to move alike
_NOISE = 1e-3  # added to the squared gradients: where there is no texture, nothing moves


class Motion(NamedTuple):
  """What happens between each frame and the next."""

  amounts: np.ndarray  # f32[N - 1]: mean length of the flow, as a fraction of the longer side of the frame
  cuts: np.ndarray  # bool[N - 1]: the two frames belong to different shots

  def shots(self) -> list[tuple[int, int]]:
    """(First frame, frame after the last one) of each shot."""
    edges = [0, *(np.flatnonzero(self.cuts) + 1).tolist(), len(self.amounts) + 1]
    return list(zip(edges, edges[1:]))


def measure_motion(frames: Iterable[np.ndarray]) -> Motion:
  """Measures the motion in a clip; one frame is kept at a time.

  Args:
    frames: uint8[H, W, 3] or uint8[H, W], all of one size, whose longer side is about LONGEST pixels.
  """
  amounts, cuts, before = [], [], None
  for frame in frames:
    grey = np.asarray(frame, np.float32) / 255
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    if before is not None:
      flow = coarse_flow(before, grey)
      amounts.append(np.sqrt(np.square(flow).sum(-1)).mean() / max(grey.shape))
      cuts.append(np.abs(_moved_back(grey, flow) - before).mean() > CUT)
    before = grey
  return Motion(np.array(amounts, np.float32), np.array(cuts, bool))


def coarse_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Dense optical flow between two small grey frames.

  Pixel (y, x) of `first` is found at (y + flow[y, x, 1], x + flow[y, x, 0]) of `second`.

  Args:
    first, second: f32[H, W] in [0, 1].
  Returns: f32[H, W, 2]: (x, y) in pixels.
  Source: Lucas and Kanade 1981, on a pyramid as in Bouguet 2000, for every pixel. The paper that the mining
    follows does not say which flow it used.
  """
  pyramid = [(first, second)]
  while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape) >= 4 * _WINDOW:
    pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
  flow = np.zeros((*pyramid[-1][0].shape, 2), np.float32)
  for one, other in reversed(pyramid):
    flow = flow if flow.shape[:2] == one.shape else _doubled(flow, one.shape)
    flow = _refined(flow, one, other)
  return flow


def _refined(flow: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """A few steps of Lucas and Kanade on one level, from a first guess f32[H, W, 2]."""
  down, across = np.gradient(first)
  xx, yy, xy = (_averaged(a * b) for a, b in ((across, across), (down, down), (across, down)))
  xx, yy = xx + _NOISE, yy + _NOISE
  scale = 1 / (xx * yy - xy * xy)
  for _ in range(_ITERATIONS):
    left = first - _moved_back(second, flow)
    x, y = _averaged(across * left), _averaged(down * left)
    step = np.stack([yy * x - xy * y, xx * y - xy * x], -1) * scale[..., None]
    flow = flow + np.clip(step, -1, 1)
  return flow.astype(np.float32)


def _moved_back(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
  """f32[H, W]: the frame where the flow leads, bilinear; beyond its edges their values are repeated."""
  height, width = frame.shape
  y = np.clip(np.arange(height, dtype=np.float32)[:, None] + flow[..., 1], 0, height - 1)
  x = np.clip(np.arange(width, dtype=np.float32) + flow[..., 0], 0, width - 1)
  top, left = np.minimum(y.astype(int), height - 2), np.minimum(x.astype(int), width - 2)
  y, x = y - top, x - left
  flat, place = frame.ravel(), top * width + left
  above = flat[place] * (1 - x) + flat[place + 1] * x
  below = flat[place + width] * (1 - x) + flat[place + width + 1] * x
  return above * (1 - y) + below * y


def _averaged(values: np.ndarray) -> np.ndarray:
  """The means over windows of _WINDOW x _WINDOW pixels, the edges repeated."""
  for axis in (0, 1):
    ends = [(_WINDOW // 2 + 1, _WINDOW // 2) if a == axis else (0, 0) for a in (0, 1)]
    total = np.cumsum(np.pad(values, ends, "edge"), axis=axis, dtype=np.float64)
    total = np.moveaxis(total, axis, 0)
    values = np.moveaxis((total[_WINDOW:] - total[:-_WINDOW]) / _WINDOW, 0, axis).astype(np.float32)
  return values


def _halved(frame: np.ndarray) -> np.ndarray:
  height, width = (side // 2 * 2 for side in frame.shape)
  return frame[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def _doubled(flow: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """The flow on the level of twice the size; an odd side repeats its last row or column."""
  grown = 2 * flow.repeat(2, 0).repeat(2, 1)
  return np.pad(grown, [(0, side - got) for side, got in zip(shape, grown.shape)] + [(0, 0)], "edge")
