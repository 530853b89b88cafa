"""Reads the frames of a video file by index: seeks to a keyframe and decodes forward."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.video.index import VideoIndex, explain, open_container, read_index, video_stream
from ssl_jax.video.picture import VideoPicture
from ssl_jax.video.sound import Sound

_NEAR = 8  # frames that are decoded rather than passed over by a seek
_INDICES = 128  # indices that a process keeps: about 1 MB for each hour of video


class VideoFile:
  """A clip that is a video file; see `clips.Clip`. It decodes in the calling thread."""

  def __init__(self, path: str):
    """Opens and indexes the file. Raises DecodeError if that is impossible."""
    self.path = path
    self.index = _index(path, *_version(path))
    self._container: Any = None
    self._pictures: Iterator[tuple[int, VideoPicture]] = iter(())  # of the decoder, from `_next` on
    self._next = len(self.index.pts)  # the frame that the decoder yields next

  def __len__(self) -> int:
    return len(self.index.pts)

  @property
  def times(self) -> np.ndarray:
    return self.index.times

  @property
  def duration(self) -> float:
    return self.index.duration

  def sound(self) -> Sound | None:
    return Sound(self.path, self.index.start) if self.index.has_sound else None

  def pictures(self, indices: Iterable[int]) -> Iterator[tuple[int, VideoPicture]]:
    for index in indices:
      if index < self._next or self._seek_saves(index):
        self._go_to(index)
      picture = self._decode(index)
      if picture is None:  # a last attempt: perhaps the file lacks what the decoder needs after a seek
        self._begin()
        picture = self._decode(index)
      if picture is None:
        raise DecodeError(f"frame {index} of {len(self)} ({self.times[index]:.3f} s) cannot be decoded")
      yield index, picture

  def close(self) -> None:
    if self._container is not None:
      self._container.close()
      self._container = None
    self._pictures, self._next = iter(()), len(self)

  def _decode(self, index: int) -> VideoPicture | None:
    """Decodes until frame `index`; None if the decoder leaves it out."""
    for place, picture in self._pictures:
      self._next = place + 1
      if place >= index:
        return picture if place == index else None
    self._next = len(self)
    return None

  def _seek_saves(self, index: int) -> bool:
    """Whether a keyframe lies between the decoder and a frame that is not near."""
    if self.index.counted or index - self._next < _NEAR:
      return False
    return bool(self._keyframe(index) > self._keyframe(self._next))

  def _keyframe(self, index: int) -> int:
    """The number of the last keyframe that is not shown after frame `index`."""
    return int(np.searchsorted(self.index.key_pts, self.index.pts[index], side="right")) - 1

  def _go_to(self, index: int) -> None:
    """Makes the decoder start at a keyframe that is not shown after frame `index`.

    A seek that leads elsewhere is repeated towards ever earlier keyframes, at last from the beginning.
    """
    key, back = (0, 1) if self.index.counted else (self._keyframe(index), 1)
    while key > 0:
      packets = self._seek(int(self.index.key_pts[key]), latest=int(self.index.pts[index]))
      if packets is not None:
        self._pictures = self._from_packets(packets)
        return
      key, back = key - back, 2 * back
    self._begin()

  def _begin(self) -> None:
    """Makes the decoder start at the first frame."""
    container = self._reopen()
    self._pictures = self._from_packets(container.demux(video_stream(container)))

  def _seek(self, pts: int, latest: int) -> Iterator[Any] | None:
    """Seeks to `pts`, and returns the packets from the next keyframe on.

    Returns: None if that keyframe is shown after `latest`, or is unknown: after a seek, some formats give
      packets the times of their neighbours.
    """
    from av.error import FFmpegError

    container = self._container or self._reopen()
    stream = video_stream(container)
    try:
      container.seek(pts, stream=stream)
      packets = container.demux(stream)
      for packet in packets:
        if packet.is_keyframe:
          pts_of_key = packet.pts
          if pts_of_key is None or pts_of_key > latest or pts_of_key not in self.index.key_pts:
            return None
          return _chain(packet, packets)
    except FFmpegError:
      pass
    return None

  def _reopen(self) -> Any:
    if self._container is not None:
      self._container.close()
    self._container = open_container(self.path)
    video_stream(self._container).codec_context.thread_count = 1  # the pipeline decodes a clip on each core
    return self._container

  def _from_packets(self, packets: Iterable[Any]) -> Iterator[tuple[int, VideoPicture]]:
    """Yields (index, picture) of the frames from the first packet on, which is a keyframe."""
    from av.error import FFmpegError
    from av.video.reformatter import VideoReformatter

    reformatter, pts, number, first = VideoReformatter(), self.index.pts, 0, None
    try:
      for packet in packets:
        first = packet.pts if first is None else first
        for frame in packet.decode():
          if self.index.counted:
            place, number = number, number + 1
          else:  # frames before the keyframe in the order of showing refer to frames that were not decoded
            place = _place(pts, frame.pts, first)
          if place is None or place >= len(pts):
            continue
          if frame.is_corrupt:
            raise DecodeError(f"frame {place} of {len(pts)} is damaged")
          yield place, VideoPicture(frame, reformatter)
    except FFmpegError as error:
      raise DecodeError(f"decoding stops at frame {self._next} of {len(pts)}: {explain(error)}") from error


def _place(pts: np.ndarray, moment: int | None, first: int | None) -> int | None:
  """The index of a frame that is shown at `moment`; None if it is unknown, or before `first`."""
  if moment is None or first is None or moment < first:
    return None
  place = int(np.searchsorted(pts, moment))
  return place if place < len(pts) and pts[place] == moment else None


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
  yield first
  yield from rest


def _version(path: str) -> tuple[int, int]:
  try:
    found = os.stat(path)
  except OSError as error:
    raise DecodeError(f"it cannot be read: {error.strerror}") from error
  return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=_INDICES)
def _index(path: str, size: int, modified: int) -> VideoIndex:
  """The index of a file of this size and time, read once by a process."""
  if not size:
    raise DecodeError("the file is empty")
  with open_container(path) as container:
    return read_index(container)
