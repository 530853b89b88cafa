"""Brings an image, and what belongs to its pixels, to one square: the image, its mask and its boxes move
alike.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.config.checked import nearest
from ssl_jax.data import decode
from ssl_jax.data.transforms import INTERPOLATIONS, power_of_two, shorter_side_to

FITS = ("pad", "crop")


class Place(NamedTuple):
  """Where an image comes to lie: it is resized to `resized`, then shifted by `offset` towards the upper left."""

  full: tuple[int, int]  # (width, height) of the image as it is stored
  resized: tuple[int, int]  # (width, height)
  offset: tuple[int, int]  # (left, top): pixels of the resized image that are cut off there
  size: int  # side of the canvas

  def filled(self) -> np.ndarray:
    """i32[2]: (height, width) of the part of the canvas, from its upper left corner, that the image fills."""
    width, height = (min(r - o, self.size) for r, o in zip(self.resized, self.offset, strict=True))
    return np.array([height, width], np.int32)


@dataclasses.dataclass(frozen=True)
class Fit:
  """A way to bring images of any size to a square canvas.

  "pad": an image whose longer side exceeds the canvas is reduced to it, a smaller one keeps its size; the
    rest of the canvas is padded at the
  bottom and on the right. "crop": the shorter side is resized to the canvas, and the centre square is cut
    out.
  """

  size: int  # side of the canvas in pixels
  fit: str  # "pad" or "crop"
  interpolation: str = "bilinear"  # of the image; masks take the nearest pixel

  def check(self) -> Fit:
    """Returns itself. Raises ValueError for values out of range."""
    if self.size < 1:
      raise ValueError(f"config.data.size is {self.size}; use at least 1 pixel")
    for what, value, known in (
      ("config.host.fit", self.fit, FITS),
      ("config.data.interpolation", self.interpolation, tuple(INTERPOLATIONS)),
    ):
      if value not in known:
        raise ValueError(f"{what} is {value!r}{nearest(value, known)}")
    return self

  def place(self, width: int, height: int) -> Place:
    """Where an image of this size comes to lie."""
    if self.fit == "crop":
      resized = shorter_side_to(self.size, width, height)
      offset = tuple(round((side - self.size) / 2) for side in resized)
    else:
      factor = min(1.0, self.size / max(width, height))
      resized = tuple(max(1, min(self.size, round(side * factor))) for side in (width, height))
      offset = (0, 0)
    return Place((width, height), resized, offset, self.size)

  def image(self, opened: decode.Opened, place: Place) -> np.ndarray:
    """uint8[size, size, 3]; padding is black. Raises DecodeError."""
    spare = min(full / small for full, small in zip(place.full, place.resized, strict=True))
    loaded = decode.load(opened, shrink=power_of_two(spare / 2))
    if loaded.size != place.resized:
      loaded = loaded.resize(place.resized, INTERPOLATIONS[self.interpolation])
    return self._on_canvas(decode.to_array(loaded), place, 0)

  def mask(self, mask: np.ndarray, place: Place, padding: int) -> np.ndarray:
    """uint8[size, size] of a mask uint8[H, W]; each pixel takes the value of the nearest one."""
    if mask.shape[::-1] != place.resized:
      mask = np.asarray(Image.fromarray(mask).resize(place.resized, Image.Resampling.NEAREST))
    return self._on_canvas(mask, place, padding)

  def boxes(self, boxes: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """(Boxes f32[N, 4] on the canvas, clipped to the image; numbers i64[K] of those that keep an area)."""
    factor = np.array([r / f for r, f in zip(place.resized, place.full, strict=True)] * 2, np.float32)
    moved = boxes * factor - np.array(place.offset * 2, np.float32)
    height, width = place.filled()
    moved = np.clip(moved, 0, np.array([width, height] * 2, np.float32))
    return moved, np.flatnonzero(((moved[:, 2:] - moved[:, :2]) > 0).all(1))

  def _on_canvas(self, pixels: np.ndarray, place: Place, padding: int) -> np.ndarray:
    left, top = place.offset
    height, width = place.filled()
    found = pixels[top : top + height, left : left + width]
    if found.shape[:2] == (self.size, self.size):
      return np.ascontiguousarray(found)
    canvas = np.full((self.size, self.size, *pixels.shape[2:]), padding, np.uint8)
    canvas[:height, :width] = found
    return canvas
