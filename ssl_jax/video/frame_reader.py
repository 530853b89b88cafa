"""Reads the frames of one clip as the records of a source."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence

from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Source
from ssl_jax.video.clips import Clip, open_clip


@dataclasses.dataclass(frozen=True, eq=False)
class FrameReader:
  """A Reader with a record for each frame: its pixels as "image", and the label -1."""

  path: str
  times: tuple[float, ...]  # of the frames, seconds

  def __len__(self) -> int:
    return len(self.times)

  def read(self, indices: Sequence[int]) -> list[Record]:
    with _LOCK:  # one thread at a time may use a clip
      frames = _opened(self.path).frames(indices)
    return [{"image": frame, "label": -1} for frame in frames]

  def name(self, index: int) -> str:
    return f"frame {index}"


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=1)
def _opened(path: str) -> Clip:
  return open_clip(path)


def open_frames(path: str) -> Source:
  """Opens a video file or a folder of numbered images as a source of its frames, in order.

  Raises: as `open_clip`.
  """
  with open_clip(path) as clip:
    times = tuple(map(float, clip.times))
  return Source(FrameReader(path, times), 0, (), None, records="frames")
