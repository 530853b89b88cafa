"""What was found on the frames of streams so far; it survives an interruption."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ssl_jax.tasks.partial_results import PartialResults

SAVE_EVERY = 60  # seconds between two saves


class FrameRows:
  """A row of values for each frame, and the current parameters of the streams that run."""

  def __init__(self, kept: PartialResults, identity: dict):
    self._kept, self._identity = kept, identity
    found = kept.load(identity)
    streams = sorted(name for name in found if name.startswith("stream/"))
    self.stream: list[np.ndarray] = [found.pop(name) for name in streams]
    self._rows: dict[str, list[np.ndarray]] = {name: list(rows) for name, rows in found.items()}
    self._saved, self._seconds, self._timed = time.monotonic(), 0.0, 0

  def count(self) -> int:
    """The number of frames that have a row."""
    return len(self._rows.get("video", ()))

  def done(self, video: int) -> int:
    """The number of frames of a video that have a row."""
    return int(np.sum(np.array(self._rows.get("video", []), int) == video))

  def add(self, row: dict[str, Any]) -> None:
    """Adds a frame; "video" is the number of its video, "moment" its place in the stream."""
    for name, value in row.items():
      self._rows.setdefault(name, []).append(np.asarray(value))

  def lap(self, seconds: float, frames: int, *, first: bool) -> None:
    """Counts the time of frames; that of the first, which compiles, is left out."""
    if not first:
      self._seconds, self._timed = self._seconds + seconds, self._timed + frames

  def milliseconds(self) -> float:
    """The mean time of a frame."""
    return 1000 * self._seconds / max(self._timed, 1)

  def save(self, *, now: bool) -> None:
    """Saves what there is if `now` is True, or if the last save was more than SAVE_EVERY seconds ago."""
    if now or time.monotonic() - self._saved > SAVE_EVERY:
      streams = {f"stream/{i:05}": leaf for i, leaf in enumerate(self.stream)}
      self._kept.save(self._identity, {**self.arrays(), **streams})
      self._saved = time.monotonic()

  def arrays(self) -> dict[str, np.ndarray]:
    """All rows, stacked."""
    return {name: np.stack(rows) for name, rows in self._rows.items()}
