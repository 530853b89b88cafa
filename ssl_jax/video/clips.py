"""Opens clips: video files and folders of numbered images behind one interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.fit import Fit
from ssl_jax.video.file import VideoFile
from ssl_jax.video.frame_folder import FrameFolder
from ssl_jax.video.picture import Picture
from ssl_jax.video.sound import Sound, Span


class Frames(Protocol):
  """Where a clip gets its frames from."""

  @property
  def path(self) -> str: ...

  @property
  def times(self) -> np.ndarray: ...  # f64[N]

  @property
  def duration(self) -> float: ...

  def __len__(self) -> int: ...

  def pictures(self, indices: Iterable[int]) -> Iterator[tuple[int, Picture]]: ...  # fast if ascending

  def sound(self) -> Sound | None: ...

  def close(self) -> None: ...


def open_clip(path: str | os.PathLike) -> Clip:
  """Opens a video file or a folder of numbered images (see `frame_folder.FrameFolder`).

  The container's packets are read once to index the frames; nothing is decoded yet. If the clip has no sound
  of its own, that of a file of the same name with the suffix .wav beside it is used; its first sample is
  heard with the first frame.

  Raises: DecodeError if it is no clip, is truncated or has no frame; ImportError if it is a file and PyAV is
    not installed.
  """
  path = os.fspath(path)
  return Clip(FrameFolder(path) if os.path.isdir(path) else VideoFile(path))


class Clip:
  """A clip: `len(clip)` frames, `clip.frames(indices)`, `clip.times`, `clip.sound(start, seconds, rate)`.

  It is a context manager; one thread may use it at a time. Rotation that the file demands is applied; grey,
  palette and deep colours become RGB of 8 bits. Iterating yields every frame uint8[H, W, 3] in order.
  """

  def __init__(self, frames: Frames):
    self._frames = frames
    self._sound: Sound | None = None

  def __len__(self) -> int:
    return len(self._frames)

  def __enter__(self) -> Clip:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def __iter__(self) -> Iterator[np.ndarray]:
    for _, picture in self._frames.pictures(range(len(self))):
      yield picture.pixels()

  @property
  def times(self) -> np.ndarray:
    """f64[N]: when each frame is shown, in seconds from the first one; ascending."""
    return self._frames.times

  @property
  def duration(self) -> float:
    """Seconds from the first frame until the last one disappears."""
    return self._frames.duration

  @property
  def has_sound(self) -> bool:
    """Whether the clip has a sound stream, or a sound file beside it; it may be shorter than the clip."""
    return self._find_sound() is not None

  @property
  def sound_span(self) -> Span:
    """When there is sound, in seconds from the first frame. Raises DecodeError if there is none."""
    return self._some_sound().span

  def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decodes frames in their own size.

    Args:
      indices: of the frames, in any order; equal ones are decoded once.
    Returns: uint8[n, H, W, 3].
    Raises: DecodeError if a frame is damaged, or the frames differ in size; IndexError.
    """
    return self._gather(indices, lambda picture: picture.pixels())

  def fitted(self, indices: Sequence[int] | np.ndarray, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Decodes frames, each fitted into a canvas as soon as it is decoded.

    Frames of video files are scaled by FFmpeg, whose results differ from Pillow's by a few grey levels.

    Returns: (uint8[n, *fit.canvas, 3], i32[2]: the (height, width) of the part that the frames cover).
    Raises: as `frames`.
    """
    filled = np.zeros(2, np.int32)

    def fitted(picture: Picture) -> np.ndarray:
      place = fit.place(*picture.size)
      filled[:] = place.filled()
      return picture.fitted(fit, place)

    return self._gather(indices, fitted), filled

  def sound(self, start: float, seconds: float, rate: int, *, pad: bool = False) -> np.ndarray:
    """A window of the sound, mono f32[round(seconds * rate)]; see `Sound.read`."""
    return self._some_sound().read(start, seconds, rate, pad=pad)

  def close(self) -> None:
    """Closes the files. May be called twice."""
    self._frames.close()
    if self._sound is not None:
      self._sound.close()
      self._sound = None

  def _gather(self, indices: Sequence[int] | np.ndarray, made: Callable[[Picture], np.ndarray]) -> np.ndarray:
    """Stacks `made(picture)` of the frames."""
    wanted = np.asarray(indices, np.int64)
    if not wanted.size or wanted.min() < 0 or wanted.max() >= len(self):
      raise IndexError(f"the frames {list(indices)[:5]}... are not within the clip of {len(self)} frames")
    unique, places = np.unique(wanted, return_inverse=True)
    found: Any = None
    size = (0, 0)
    for index, picture in self._frames.pictures(map(int, unique)):
      if found is not None and picture.size != size:
        raise DecodeError(
          "frame {} has {}x{} pixels, earlier ones have {}x{}".format(index, *picture.size, *size)
        )
      size, array = picture.size, made(picture)
      found = np.empty((len(wanted), *array.shape), np.uint8) if found is None else found
      found[places == np.searchsorted(unique, index)] = array
    return found

  def _find_sound(self) -> Sound | None:
    if self._sound is None:
      path = self._frames.path
      beside = f"{path if os.path.isdir(path) else os.path.splitext(path)[0]}.wav"
      self._sound = self._frames.sound() or (Sound(beside) if os.path.isfile(beside) else None)
    return self._sound

  def _some_sound(self) -> Sound:
    sound = self._find_sound()
    if sound is None:
      raise DecodeError("it has no sound")
    return sound
