"""One frame of a clip: its upright size and its pixels, in full or fitted into a canvas."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from PIL import Image

from ssl_jax.data import decode
from ssl_jax.data.fit import Fit, Place
from ssl_jax.data.transforms import INTERPOLATIONS, LONGEST

MAX_PIXELS = 2**25  # of a frame, as many as 7680x4320: a decoder holds up to 17 frames at once


class Picture(Protocol):
  """A frame that has been read, but perhaps not yet decoded or converted."""

  @property
  def size(self) -> tuple[int, int]: ...  # (width, height) of the upright frame in pixels

  def pixels(self) -> np.ndarray: ...  # uint8[height, width, 3], upright

  def fitted(self, fit: Fit, place: Place) -> np.ndarray: ...  # uint8[*canvas, 3]


class ImagePicture:
  """A frame that is an encoded image."""

  def __init__(self, data: bytes):
    self._opened = decode.open_image(data, max_pixels=MAX_PIXELS)
    self.size = self._opened.size

  def pixels(self) -> np.ndarray:
    return decode.to_array(decode.load(self._opened))

  def fitted(self, fit: Fit, place: Place) -> np.ndarray:
    return fit.image(self._opened, place)


class Turn:
  """The rotation and mirroring that a display matrix demands, in steps of 90 degrees.

  Source: the display matrix of FFmpeg and of the track header of MP4: (x, y) is shown at (a x + c y, b x +
  d y), where the matrix begins with a, b, _, c, d in 16.16 fixed point.
  """

  def __init__(self, matrix: np.ndarray | None):
    """Args: matrix: i32[9], or None for a frame that is stored upright."""
    a, b, _, c, d = (65536, 0, 0, 0, 65536) if matrix is None else map(int, matrix[:5])
    self.swaps = abs(b) + abs(c) > abs(a) + abs(d)  # width and height
    across, down = (c, b) if self.swaps else (a, d)
    self._steps = (-1 if down < 0 else 1, -1 if across < 0 else 1)

  def size(self, width: int, height: int) -> tuple[int, int]:
    """The (width, height) after the turn of what has this width and height; it is its own inverse."""
    return (height, width) if self.swaps else (width, height)

  def __call__(self, pixels: np.ndarray) -> np.ndarray:
    """Turns pixels [H, W] or [H, W, C]; returns a view."""
    pixels = pixels.swapaxes(0, 1) if self.swaps else pixels
    return pixels[:: self._steps[0], :: self._steps[1]]


class VideoPicture:
  """A frame that PyAV decoded. It is scaled and converted to RGB by FFmpeg, in one pass."""

  def __init__(self, frame: Any, reformatter: Any):
    self._frame, self._reformatter = frame, reformatter
    matrix = frame.side_data.get("DISPLAYMATRIX")
    self._turn = Turn(None if matrix is None else np.frombuffer(bytes(matrix), np.int32))
    self.size = self._turn.size(frame.width, frame.height)

  def pixels(self) -> np.ndarray:
    width, height = self._frame.width, self._frame.height
    rgb = self._reformatter.reformat(self._frame, width, height, "rgb24", threads=1)
    return np.ascontiguousarray(self._turn(_rows(rgb.planes[0], 3 * width, height).reshape(height, width, 3)))

  def fitted(self, fit: Fit, place: Place) -> np.ndarray:
    if max(place.resized) > LONGEST * min(place.resized):  # long and thin: only the part on the canvas
      image = place.fit(Image.fromarray(self.pixels()), INTERPOLATIONS[fit.interpolation])
      return fit.on_canvas(decode.to_array(image), place, 0)
    width, height = self._turn.size(*place.resized)
    kind = {"nearest": "POINT"}.get(fit.interpolation, fit.interpolation.upper())
    # FFmpeg scales into planes faster than into RGB, whose code for odd widths is slower still
    planar = self._reformatter.reformat(self._frame, width, height, "gbrp", interpolation=kind, threads=1)
    (left, top), (down, across) = place.offset, map(int, place.filled())
    found = np.empty((down, across, 3), np.uint8)
    for channel, plane in enumerate((2, 0, 1)):
      upright = self._turn(_rows(planar.planes[plane], width, height))
      found[..., channel] = upright[top : top + down, left : left + across]
    return fit.on_canvas(found, place, 0)


def _rows(plane: Any, length: int, height: int) -> np.ndarray:
  """The bytes of a plane without the padding of its rows, uint8[height, length]."""
  rows = np.frombuffer(plane, np.uint8)[: height * plane.line_size]
  return rows.reshape(height, plane.line_size)[:, :length]
