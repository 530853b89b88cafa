"""Indexes a video file: which frames it has and when they are shown, from its packets, without decoding."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.video.picture import MAX_PIXELS

_NO_TIMESTAMPS = 0x80  # flag of formats such as raw H.264
_TOLD = ("mov", "matroska", "avi")  # formats whose header tells the duration; of others it is estimated
_MISSING = 0.05  # fraction of that duration, and
_MISSING_SECONDS = 1.0  # seconds, which must both be missing at the end of a file that counts as truncated
_VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte


class VideoIndex(NamedTuple):
  """The frames of a video file, in the order in which they are shown."""

  pts: np.ndarray  # i64[N]: presentation times, ascending, in units of `unit` seconds
  unit: float
  key_pts: np.ndarray  # i64[K]: presentation times where decoding may start, ascending; some may be hidden
  counted: bool  # the decoder's times are not reliable: frames are counted from the beginning of the file
  duration: float  # seconds from the first frame until the last one disappears
  has_sound: bool  # whether the file has a sound stream

  @property
  def start(self) -> float:
    """The time of the first frame on the clock of the file, in seconds."""
    return float(self.pts[0]) * self.unit

  @property
  def times(self) -> np.ndarray:
    """f64[N]: when each frame is shown, in seconds from the first one."""
    return (self.pts - self.pts[0]) * self.unit


class _Packets(NamedTuple):
  """What a pass over the packets of a file finds: one row for each packet of the video stream."""

  pts: list[int | None]
  dts: list[int | None]
  key: list[bool]
  shown: list[bool]  # False: an edit list, or VP8, hides the frame
  last_duration: int  # of the packet that is shown last, in units of the stream; 0: not told
  end: float  # the latest time of all streams, in seconds
  partial: bool  # the file ends within a packet


def check_installed(module: str = "av", name: str = "PyAV", user: str = "reading video") -> None:
  """Raises ImportError if a package of the extra `video` is not installed."""
  if importlib.util.find_spec(module) is None:
    raise ImportError(f"{user} needs {name}, which is not installed; run: pip install 'ssl_jax[video]'")


def open_container(path: str) -> Any:
  """Opens a file by PyAV.

  Raises: ImportError if PyAV is not installed; DecodeError if the file is not a video or sound that FFmpeg
    knows, or does not exist.
  """
  check_installed()
  import av
  from av.error import FFmpegError

  try:  # with the protocol, a colon in the name is no protocol; and no file may refer to another machine
    return av.open(f"file:{os.path.abspath(path)}", options={"protocol_whitelist": "file"})
  except (FFmpegError, ValueError) as error:
    raise DecodeError(f"it cannot be opened as video or sound: {explain(error)}") from error


def explain(error: Exception) -> str:
  """The reason of an error of FFmpeg, without the path and the number."""
  return getattr(error, "strerror", None) or str(error) or type(error).__name__


def video_stream(container: Any) -> Any:
  """The first video stream that is not a cover picture. Raises DecodeError if there is none."""
  for stream in container.streams.video:
    if not stream.disposition & stream.disposition.attached_pic:
      return stream
  raise DecodeError("the file has no video stream")


def read_index(container: Any) -> VideoIndex:
  """Reads the packets of an opened file to its end, and indexes the frames of its video.

  Packets before the first keyframe cannot be decoded and are left out, and so are frames that an edit list
  hides.

  Raises: DecodeError if there is no frame, the frames have too many pixels, or the file is truncated.
  """
  stream = video_stream(container)
  width, height = stream.codec_context.width, stream.codec_context.height
  if width * height > MAX_PIXELS:
    raise DecodeError(f"the frames have {width}x{height} pixels, more than the limit of {MAX_PIXELS}")
  packets = _read_packets(container, stream)
  if not packets.pts:
    raise DecodeError("the file holds no frame")
  _check_complete(container, packets)
  reordered = any(pts != dts for pts, dts in zip(packets.pts, packets.dts))
  counted = (
    bool(container.format.flags & _NO_TIMESTAMPS)
    or (container.format.name == "avi" and reordered)  # it stores the order of decoding only
    or None in packets.pts
    or len(set(packets.pts)) < len(packets.pts)
  )
  rate = float(stream.average_rate or stream.base_rate or 25)
  has_sound = bool(container.streams.audio)
  if counted:
    return _counted(packets, rate, float(stream.time_base), has_sound)
  pts, key, shown = np.array(packets.pts, np.int64), np.array(packets.key), np.array(packets.shown)
  key[0] |= not key.any()
  unit, key_pts = float(stream.time_base), np.sort(pts[key])
  visible = np.sort(pts[shown & (pts >= key_pts[0])])
  if not len(visible):
    raise DecodeError("the file holds no frame that can be shown")
  duration = _duration(visible, unit, packets.last_duration, rate)
  return VideoIndex(visible, unit, key_pts, False, duration, has_sound)


def _read_packets(container: Any, stream: Any) -> _Packets:
  from av.error import FFmpegError

  pts, dts, key, shown = [], [], [], []
  latest, last_duration, end, partial = -(2**62), 0, 0.0, False
  vp8 = stream.codec_context.name in ("vp8", "libvpx")
  try:
    for packet in container.demux():
      if not packet.size:
        continue  # the last packet of each stream
      partial |= packet.is_corrupt
      moment = packet.dts if packet.pts is None else packet.pts
      if moment is not None:
        end = max(end, float((moment + (packet.duration or 0)) * packet.time_base))
      if packet.stream_index != stream.index:
        continue
      pts.append(packet.pts)
      dts.append(packet.dts)
      key.append(packet.is_keyframe)
      shown.append(not packet.is_discard and not (vp8 and not memoryview(packet)[0] & _VP8_SHOWN))
      if shown[-1] and moment is not None and moment > latest:
        latest, last_duration = moment, packet.duration or 0
  except FFmpegError as error:
    raise DecodeError(f"after {len(pts)} frames the file is damaged: {explain(error)}") from error
  return _Packets(pts, dts, key, shown, last_duration, end, partial)


def _check_complete(container: Any, packets: _Packets) -> None:
  """Raises DecodeError if a file ends within a packet, or long before the duration that its header states."""
  if not container.format.name.startswith(_TOLD) or not container.duration:
    return
  if packets.partial:
    raise DecodeError(f"the file is truncated: it ends within one of its {len(packets.pts)} frames")
  told = container.duration / 1e6
  missing = told - (packets.end - max((container.start_time or 0) / 1e6, 0.0))
  if missing > max(_MISSING_SECONDS, _MISSING * told):
    raise DecodeError(f"the file is truncated: its header states {told:.1f} s, {missing:.1f} s are missing")


def _counted(packets: _Packets, rate: float, unit: float, has_sound: bool) -> VideoIndex:
  """The index of frames that are counted: the times of decoding tell theirs, or the rate does."""
  shown = sum(packets.shown)
  moments = [dts for dts, visible in zip(packets.dts, packets.shown) if visible and dts is not None]
  if len(set(moments)) == shown:
    pts = np.sort(np.array(moments, np.int64))
  else:
    pts, unit = np.arange(shown, dtype=np.int64), 1 / rate
  return VideoIndex(pts, unit, pts[:1], True, _duration(pts, unit, 0, rate), has_sound)


def _duration(pts: np.ndarray, unit: float, last: int, rate: float) -> float:
  return float(pts[-1] - pts[0]) * unit + (last * unit if last else 1 / rate)
