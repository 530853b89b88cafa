"""What was found on the frames of streams so far; it survives an interruption."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ssl_jax.parallel import placement
from ssl_jax.tasks.partial_results import PartialResults

LENGTHS = "/lengths"  # ends the name of the lengths of rows of bytes
SAVE_EVERY = 64  # moments of the streams between two saves: a count, so that all processes save together


class FrameRows:
  """A row of values for each frame, and the current parameters of the streams that run."""

  def __init__(self, kept: PartialResults, identity: dict):
    self._kept, self._identity = kept, identity
    found = kept.load(identity)
    streams = sorted(name for name in found if name.startswith("stream/"))
    # the leaves of the parameters after the latest moment; on the devices, once it was computed
    self.stream: list[np.ndarray | jax.Array] = [found.pop(name) for name in streams]
    self._rows: dict[str, list[np.ndarray | bytes]] = {
      name: list(split_rows(found, name)) for name in found if not name.endswith(LENGTHS)
    }
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
      self._rows.setdefault(name, []).append(value if isinstance(value, bytes) else np.asarray(value))

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
    """All rows, stacked; those of bytes are joined, uint8[...], beside their lengths; see `split_rows`."""
    found: dict[str, np.ndarray] = {}
    for name, rows in self._rows.items():
      joined = [row for row in rows if isinstance(row, bytes)]
      if joined:
        found[name] = np.frombuffer(b"".join(joined), np.uint8)
        found[name + LENGTHS] = np.array([len(row) for row in joined], np.int64)
      else:
        found[name] = np.stack(rows)
    return found


def split_rows(arrays: Mapping[str, np.ndarray], name: str) -> Iterator[np.ndarray | bytes]:
  """The rows called `name` of what `FrameRows.arrays` returned."""
  if name + LENGTHS not in arrays:
    yield from arrays[name]
    return
  ends = np.cumsum(arrays[name + LENGTHS]).tolist()
  for start, end in zip([0, *ends], ends):
    yield arrays[name][start:end].tobytes()


def _on_host(leaf: np.ndarray | jax.Array) -> np.ndarray:
  return placement.fetch(leaf) if isinstance(leaf, jax.Array) else leaf
