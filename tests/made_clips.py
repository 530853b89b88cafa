"""Writes small clips whose frames show their number, for tests."""

from __future__ import annotations

import pathlib
from fractions import Fraction

import numpy as np

BITS = 12  # bars in a frame, each black or white


def pattern(number: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
  """A frame uint8[H, W, 3] of this (width, height) that shows a number; its lower quarter is red and blue."""
  width, height = size
  bits = (number >> np.arange(BITS)) & 1
  row = np.repeat(255 * bits, -(-width // BITS))[:width].astype(np.uint8)
  frame = np.repeat(np.tile(row, (height, 1))[..., None], 3, -1)
  frame[3 * height // 4 :, : width // 2] = (230, 20, 20)
  frame[3 * height // 4 :, width // 2 :] = (20, 20, 230)
  return frame


def number(frame: np.ndarray) -> int:
  """Reads the number that a frame uint8[H, W, 3] shows."""
  bar = -(-frame.shape[1] // BITS)
  values = [frame[: frame.shape[0] // 2, i * bar : (i + 1) * bar].mean() for i in range(BITS)]
  return int(sum((value > 128) << i for i, value in enumerate(values)))


def write_clip(
  path: pathlib.Path,
  count: int = 30,
  *,
  codec: str = "mpeg4",
  size: tuple[int, int] = (96, 64),
  rate: int = 25,
  options: dict[str, str] | None = None,
  pixels: str = "yuv420p",
  times: np.ndarray | None = None,
  matrix: tuple[int, ...] = (),
  sound: np.ndarray | None = None,
  sound_codec: str = "aac",
  sound_rate: int = 16000,
  form: str | None = None,
) -> pathlib.Path:
  """Writes a clip of frames that show 0 to count - 1.

  Args:
    times: of the frames in milliseconds; None: by `rate`.
    matrix: the display matrix, 9 numbers.
    sound: f32[samples] or f32[channels, samples], encoded by `sound_codec`; starts with the first frame.
    form: the container; None: by the suffix.
  """
  import av

  with av.open(str(path), "w", format=form) as out:
    video = out.add_stream(codec, rate=rate, options=options or {})
    video.width, video.height = size
    video.pix_fmt = pixels
    if matrix:
      video.set_display_matrix(matrix)
    if times is not None:
      video.codec_context.time_base = Fraction(1, 1000)
    heard = None if sound is None else add_sound(out, sound_codec, sound_rate, sound)
    for i in range(count):
      frame = av.VideoFrame.from_ndarray(pattern(i, size), format="rgb24").reformat(format=pixels)
      frame.pts = i if times is None else int(times[i])
      frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
      out.mux(video.encode(frame))
    out.mux(video.encode())
    if heard is not None and sound is not None:
      write_sound(out, heard, sound_rate, sound)
  return path


def add_sound(out, codec: str, rate: int, sound: np.ndarray):
  """Adds a stream of sound to an opened file."""
  return out.add_stream(codec, rate=rate, layout="stereo" if sound.ndim == 2 else "mono")


def write_sound(out, stream, rate: int, sound: np.ndarray) -> None:
  """Encodes sound f32[samples] or f32[channels, samples] into a stream, and ends it."""
  import av

  kind = stream.format.name
  resampler = av.AudioResampler(format=kind, layout=stream.layout, rate=rate)
  values = np.atleast_2d(sound).astype(np.float32)
  for start in range(0, values.shape[1], 1024):
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(values[:, start : start + 1024]), format="fltp", layout=stream.layout.name
    )
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    for converted in resampler.resample(frame):
      out.mux(stream.encode(converted))
  out.mux(stream.encode())


def write_wav(path: pathlib.Path, sound: np.ndarray, rate: int = 16000) -> pathlib.Path:
  """Writes sound f32[samples] as a file of 16 bits."""
  import wave

  with wave.open(str(path), "wb") as out:
    out.setnchannels(1)
    out.setsampwidth(2)
    out.setframerate(rate)
    out.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
  return path
