"""Reads a folder of numbered images as a clip."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.folder_layout import is_image
from ssl_jax.video.picture import ImagePicture
from ssl_jax.video.sound import Sound

RATE = 25.0  # frames a second, unless the folder says otherwise
RATE_FILE, TIMES_FILE = "fps.txt", "times.txt"
_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\d+)\.\w+$")


def is_frame(name: str) -> bool:
  """Whether a file name is that of an image whose name ends in a number."""
  return is_image(name) and bool(_NUMBERED.match(name))


def is_frame_folder(names: Sequence[str]) -> bool:
  """Whether a folder with files of these names is a clip: it has images, and all of them are numbered."""
  images = [name for name in names if is_image(name)]
  return bool(images) and all(map(is_frame, images))


class FrameFolder:
  """A clip that is a folder of numbered images, in the order of their numbers; see `clips.Clip`.

  A file fps.txt in the folder states the number of frames a second, or times.txt the time of each frame in
  seconds, one a line; otherwise there are 25 frames a second.
  """

  def __init__(self, path: str):
    """Raises DecodeError if the folder cannot be read or holds no numbered image, or its times are wrong."""
    self.path = path
    try:
      names = os.listdir(path)
    except OSError as error:
      raise DecodeError(f"it cannot be read: {error.strerror}") from error
    self._names = sorted(filter(is_frame, names), key=_by_number)
    if not self._names:
      raise DecodeError("the folder holds no numbered image")
    self.times, self.duration = _times(pathlib.Path(path), names, len(self._names))

  def __len__(self) -> int:
    return len(self._names)

  def pictures(self, indices: Iterable[int]) -> Iterator[tuple[int, ImagePicture]]:
    for index in indices:
      try:
        yield index, ImagePicture(pathlib.Path(self.path, self._names[index]).read_bytes())
      except (OSError, DecodeError) as error:
        raise DecodeError(f"frame {index}, {self._names[index]}: {error}") from error

  def sound(self) -> Sound | None:
    return None

  def close(self) -> None:
    pass


def _by_number(name: str) -> tuple[str, int]:
  found = _NUMBERED.match(name)
  return (found["name"], int(found["number"])) if found else (name, 0)


def _times(folder: pathlib.Path, names: Sequence[str], count: int) -> tuple[np.ndarray, float]:
  """(f64[count] seconds from the first frame, the duration of the clip)."""
  try:
    if TIMES_FILE in names:
      times = np.array((folder / TIMES_FILE).read_text().split(), np.float64)
      if len(times) != count or not (np.diff(times) > 0).all():
        raise DecodeError(
          f"{TIMES_FILE} must hold {count} ascending times in seconds, and it holds {len(times)} numbers"
        )
      last = float(np.median(np.diff(times))) if count > 1 else 1 / RATE
      return times - times[0], float(times[-1] - times[0]) + last
    rate = float((folder / RATE_FILE).read_text()) if RATE_FILE in names else RATE
  except (OSError, ValueError) as error:
    raise error if isinstance(error, DecodeError) else DecodeError(str(error)) from error
  if not 0 < rate < 1e6:
    raise DecodeError(f"{RATE_FILE} states {rate:g} frames a second")
  return np.arange(count) / rate, count / rate
