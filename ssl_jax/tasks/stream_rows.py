"""What was found on the frames of streams so far; it survives an interruption."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from ssl_jax.parallel import placement
from ssl_jax.tasks.partial_results import PartialResults

SAVE_EVERY = 64  # moments of the streams between two saves: a count, so that all processes save together


class FrameRows:
  """A row of values for each frame, and the current parameters of the streams that run."""

  def __init__(self, kept: PartialResults, identity: dict):
    self._kept, self._identity = kept, identity
    found = kept.load(identity)
    streams = sorted(name for name in found if name.startswith("stream/"))
    # the leaves of the parameters after the latest moment; on the devices, once it was computed
    self.stream: list[np.ndarray | jax.Array] = [found.pop(name) for name in streams]
    self._rows: dict[str, list[np.ndarray]] = {name: list(rows) for name, rows in found.items()}
    self._asked, self._clock, self._seconds, self._timed = 0, None, 0.0, 0

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

  def pause(self) -> None:
    """Excludes the time until the next lap, in which programs are compiled."""
    self._clock = None

  def lap(self, frames: int) -> None:
    """Counts the time since the last lap as that of this number of frames."""
    now = time.perf_counter()
    if self._clock is not None:
      self._seconds, self._timed = self._seconds + now - self._clock, self._timed + frames
    self._clock = now

  def milliseconds(self) -> float:
    """The mean time of a frame."""
    return 1000 * self._seconds / max(self._timed, 1)

  def save(self, *, now: bool) -> None:
    """Saves what there is if `now` is True, and at every SAVE_EVERY-th call."""
    self._asked += 1
    if now or self._asked % SAVE_EVERY == 0:
      streams = {f"stream/{i:05}": _on_host(leaf) for i, leaf in enumerate(self.stream)}
      self._kept.save(self._identity, {**self.arrays(), **streams})

  def arrays(self) -> dict[str, np.ndarray]:
    """All rows, stacked."""
    return {name: np.stack(rows) for name, rows in self._rows.items()}


def _on_host(leaf: np.ndarray | jax.Array) -> np.ndarray:
  return placement.fetch(leaf) if isinstance(leaf, jax.Array) else leaf
