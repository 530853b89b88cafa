"""A film of pictures as an animated GIF, which needs no library for videos."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

HEIGHT = 240  # pixels of a frame
FRAMES = 150  # at most


def frames_shown(count: int) -> range:
  """The numbers of those of `count` frames that a film shows: at most FRAMES, at equal distances."""
  return range(0, count, max(-(-count // FRAMES), 1))


def write_film(path: pathlib.Path, pictures: Sequence[np.ndarray], *, milliseconds: float) -> None:
  """Writes an animated GIF.

  Args:
    pictures: uint8[H, W, 3] of one size; higher ones are reduced to HEIGHT.
    milliseconds: of a frame.
  """
  height, width = pictures[0].shape[:2]
  factor = min(1.0, HEIGHT / height)
  size = (max(round(width * factor), 1), max(round(height * factor), 1))
  frames = [
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR).quantize(128) for picture in pictures
  ]
  path.parent.mkdir(parents=True, exist_ok=True)
  frames[0].save(path, save_all=True, append_images=frames[1:], duration=max(milliseconds, 20), loop=0)
