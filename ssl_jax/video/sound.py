"""Reads the sound of a clip: a window of it, mono, at any sampling rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.video.index import explain, open_container

_PREROLL = 0.3  # seconds that are decoded before a window: some codecs need earlier packets
_GAP = 0.02  # seconds by which a time may differ from the number of samples so far: formats round times
_TAPS = 10  # half-length of the filter of scipy.signal.resample_poly, in samples of the lower rate


class Span(NamedTuple):
  """When there is sound, in seconds on the clock of the clip, and its own sampling rate."""

  first: float
  last: float
  rate: int


class Sound:
  """The first sound stream of a file. `read` gives a window of it."""

  def __init__(self, path: str, origin: float = 0.0):
    """
    Args:
      path: of a video with sound, or of a sound file.
      origin: the time of the clip's first frame on the clock of the file, in seconds.
    """
    self._path, self._origin = path, origin
    self._opened: Any = None
    self._found: Span | None = None

  @property
  def span(self) -> Span:
    """When there is sound; from the first and the last packets. Raises DecodeError if there is none."""
    if self._found is None:
      first = next(self._blocks(None), None)
      if first is None:
        raise DecodeError("its sound is empty")
      end = self._end_of_packets()
      last = self._origin_of(first) + len(first.samples) / first.rate
      for block in self._blocks(end - _PREROLL):
        last = (last if block.start is None else block.start) + len(block.samples) / block.rate
      self._found = Span(self._origin_of(first), last, first.rate)
    return self._found

  def read(self, start: float, seconds: float, rate: int, *, pad: bool = False) -> np.ndarray:
    """The mean of the channels, resampled.

    The window starts at the sample of the resampled sound that is nearest to `start`, so that windows are
    parts of one and the same signal; in MKV and WebM, which store milliseconds, they may lie 1 ms off.

    Args:
      start: seconds from the first frame of the clip.
      seconds: of the window.
      rate: samples a second of the result.
      pad: whether to fill with zeros what lies before, after or between the sound; otherwise the window
        must be within the sound.
    Returns: f32[round(seconds * rate)], in [-1, 1] up to the overshoot of the filter.
    Raises: DecodeError if there is no sound, it is damaged, or does not cover the window.
    """
    from scipy.signal import resample_poly

    count, begin, native = round(seconds * rate), round(start * rate), self.span.rate
    common = math.gcd(native, rate)
    up, down = rate // common, native // common
    margin = 0 if up == down else _TAPS * max(up, down) // up + 1  # samples that the filter reads
    needed = begin * down // up, (begin + count - 1) * down // up + 1
    first = (needed[0] - margin) // down * down  # so that a sample of the result lies on it
    samples, there = self._native(first, needed[1] + margin + 1 - first, native, needed[0] - first)
    if not pad and not there[needed[0] - first : needed[1] - first].all():
      raise DecodeError(
        f"its sound, from {self.span.first:.2f} s to {self.span.last:.2f} s, does not cover {start:.2f} s to "
        f"{start + seconds:.2f} s"
      )
    found = samples if up == down else resample_poly(samples, up, down)
    skipped = begin - first // down * up
    return np.ascontiguousarray(found[skipped : skipped + count], np.float32)

  def close(self) -> None:
    if self._opened is not None:
      self._opened.close()
      self._opened = None

  def _native(self, first: int, count: int, rate: int, needed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples `first` to `first + count` as stored: (f32[count], bool[count]: they exist).

    Args:
      needed: the first of them that matters: if a seek leads beyond it, the sound is read from its beginning.
    """
    for start in (first / rate - _PREROLL, None):
      samples, there, place = np.zeros(count, np.float32), np.zeros(count, bool), None
      for block in self._blocks(start):
        told = None if block.start is None else round(block.start * rate) - first
        if place is None:
          place = -first if told is None else told
          if place > needed and start is not None:
            break
        elif told is not None and abs(told - place) > _GAP * rate:
          place = told
        low, high = max(place, 0), min(place + len(block.samples), count)
        if low < high:
          samples[low:high] = block.samples[low - place : high - place]
          there[low:high] = True
        place += len(block.samples)
        if place >= count:
          return samples, there
      if there.any() or start is None:
        break
    return samples, there

  def _end_of_packets(self) -> float:
    """The time of the last packet of sound, in seconds on the clock of the clip."""
    self.close()
    stream = self._stream()
    times = [packet.pts for packet in self._container().demux(stream) if packet.pts is not None]
    return max(times, default=0) * float(stream.time_base) - self._origin

  def _origin_of(self, block: _Block) -> float:
    return -self._origin if block.start is None else block.start

  def _container(self) -> Any:
    if self._opened is None:
      self._opened = open_container(self._path)
    return self._opened

  def _stream(self) -> Any:
    streams = self._container().streams.audio
    if not streams:
      raise DecodeError("it has no sound")
    return streams[0]

  def _blocks(self, start: float | None) -> Iterator[_Block]:
    """Decodes from `start` seconds on, or from a little earlier; None: from the beginning of the file."""
    from av.error import FFmpegError

    self.close()
    stream, unit = self._stream(), float(self._stream().time_base)
    try:
      if start is not None and start + self._origin > 0:
        self._container().seek(int((start + self._origin) / unit), stream=stream)
      for frame in self._container().decode(stream):
        if frame.samples:
          moment = None if frame.pts is None else frame.pts * unit - self._origin
          yield _Block(moment, frame.sample_rate, _mono(frame))
    except FFmpegError as error:
      raise DecodeError(f"its sound is damaged: {explain(error)}") from error


class _Block(NamedTuple):
  """Decoded samples that follow each other."""

  start: float | None  # seconds on the clock of the clip; None: not told
  rate: int
  samples: np.ndarray  # f32[n]


def _mono(frame: Any) -> np.ndarray:
  """The mean of the channels of decoded sound, f32[n] in [-1, 1]."""
  values = frame.to_ndarray()
  if not frame.format.is_planar:
    values = values.reshape(-1, frame.layout.nb_channels).T
  if values.dtype == np.uint8:
    values = (values.astype(np.float32) - 128) / 128
  elif values.dtype.kind == "i":
    values = values.astype(np.float32) / -np.float32(np.iinfo(values.dtype).min)
  return values.astype(np.float32).mean(0)
