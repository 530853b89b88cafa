"""The frames of a clip as miners read them: reduced, and a few at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssl_jax.data.fit import Fit
from ssl_jax.video import motion
from ssl_jax.video.clips import Clip

CHUNK = 64  # frames that are in memory at once


def reduced(height: int, width: int, factor: float, *, least: int = 1) -> Fit:
  """Frames of this size, reduced by a factor; enlarged only along a side of fewer than `least` pixels."""
  scale = min(factor, 1.0)
  return Fit((max(round(height * scale), least), max(round(width * scale), least)), "squash")


def each_frame(clip: Clip, fit: Fit) -> Iterator[np.ndarray]:
  """Yields every frame uint8[H, W, 3] in order, fitted."""
  for start in range(0, len(clip), CHUNK):
    yield from clip.fitted(range(start, min(start + CHUNK, len(clip))), fit)[0]


def small_fit(height: int, width: int) -> Fit:
  """Frames as small as `motion.measure_motion` takes them."""
  return reduced(height, width, motion.LONGEST / max(height, width), least=motion.LEAST)


def clip_motion(clip: Clip) -> motion.Motion:
  """What moves from each frame of a clip to the next."""
  height, width = clip.frames([0]).shape[1:3]
  return motion.measure_motion(each_frame(clip, small_fit(height, width)))
