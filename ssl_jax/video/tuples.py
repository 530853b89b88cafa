"""Chooses five frames of a clip, of which three in order and three out of order can be made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_jax.video.motion import Motion

FRAMES = 5  # a < b < c < d < e
# The triplets of five frames: (first, middle, last), 1 if the middle one was taken between the others. Both
# classes have b and d at their ends, so that the ends alone say nothing.
TRIPLETS = ((1, 2, 3, 1), (3, 2, 1, 1), (1, 0, 3, 0), (1, 4, 3, 0), (3, 0, 1, 0), (3, 4, 1, 0))
STATIC = 2e-4  # motion of a frame, as a fraction of its longer side, below which a window shows nothing


class Spans(NamedTuple):
  """How far the five frames are apart, in frames."""

  span: int = 60  # most from b to d
  gap: int = 15  # least from a to b, and from d to e

  def check(self) -> Spans:
    """Returns itself. Raises ValueError for values out of range."""
    if self.span < 2:
      raise ValueError(f"span is {self.span}, but a frame lies between the ends; use 2 or more, such as 60")
    if self.gap < 1:
      raise ValueError(f"gap is {self.gap}; use a positive number of frames, such as 15")
    return self

  @property
  def least(self) -> int:
    """The least number of frames of which five can be chosen."""
    return 2 * self.gap + 3

  @property
  def window(self) -> int:
    """The number of frames of the windows that five are chosen from, where the clip is long enough."""
    return 2 * self.gap + self.span + 1


class Windows(NamedTuple):
  """Windows of a clip; none of them crosses a cut."""

  first: np.ndarray  # i64[K]: of the frames
  length: np.ndarray  # i64[K]
  motion: np.ndarray  # f64[K]: mean over the steps between the frames


def find_windows(motion: Motion, spans: Spans) -> Windows:
  """All windows of a clip: `spans.window` successive frames, or whole shots that are shorter.

  Shots of less than `spans.least` frames have none.
  """
  total = np.concatenate([[0.0], np.cumsum(motion.amounts, dtype=np.float64)])
  first, length = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
  for start, end in motion.shots():
    if end - start >= spans.least:
      frames = min(end - start, spans.window)
      first.append(np.arange(start, end - frames + 1))
      length.append(np.full(len(first[-1]), frames))
  starts, lengths = np.concatenate(first), np.concatenate(length)
  return Windows(starts, lengths, (total[starts + lengths - 1] - total[starts]) / np.maximum(lengths - 1, 1))


def sample_frames(rng: np.random.Generator, windows: Windows, spans: Spans) -> np.ndarray:
  """Chooses five frames a < b < c < d < e.

  A window is drawn with a probability proportional to its motion. In it, d - b is uniform from `spans.gap`,
  or what a short window leaves, to `spans.span`; the place of b, and then a, c and e, are uniform.

  Returns: i64[5] with d - b <= span, b - a >= gap and e - d >= gap.
  Source: Misra et al. 2016, section 3.1. The paper says neither how far away a and e are at most, nor how the
    motion weighs: here they stay within the window, whose probability is proportional to it.
  """
  weights = windows.motion / windows.motion.sum()
  chosen = rng.choice(len(weights), p=weights)
  start, last = windows.first[chosen], windows.first[chosen] + windows.length[chosen] - 1
  longest = min(spans.span, last - start - 2 * spans.gap)
  between = rng.integers(min(max(spans.gap, 2), longest), longest + 1)
  b = rng.integers(start + spans.gap, last - spans.gap - between + 1)
  d = b + between
  a, c, e = rng.integers([start, b + 1, d + spans.gap], [b - spans.gap + 1, d, last + 1])
  return np.array([a, b, c, d, e])


def look_alike(frames: np.ndarray, least: float) -> bool:
  """Whether the middle one of five frames can hardly be told from the first or the last.

  Args:
    frames: uint8[5, h, w, 3], small copies.
    least: mean squared difference of grey levels from 0 to 255 below which two frames look alike.
  """
  values = frames.astype(np.float32)
  differences = np.square(values[[0, 4]] - values[2][None]).mean((1, 2, 3))
  return bool((differences < least).any())
