"""The latest frames of an episode: what a policy sees."""

from __future__ import annotations

import numpy as np


class FrameStack:
  """The latest frames, which begin as copies of the first."""

  def __init__(self, first: np.ndarray, count: int):
    """
    Args:
      first: uint8[S, S, 3].
      count: of the frames that a policy sees; one more is kept, so that two observations are known.
    """
    self._frames = [first] * (count + 1)

  def add(self, frame: np.ndarray) -> None:
    """Adds a frame and forgets the oldest."""
    self._frames = [*self._frames[1:], frame]

  @property
  def clip(self) -> np.ndarray:
    """uint8[count + 1, S, S, 3], oldest first: the last `count` are what is seen now."""
    return np.stack(self._frames)
