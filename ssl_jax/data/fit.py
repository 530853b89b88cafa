"""Fits an image of any size into a square canvas, and transforms its mask and its boxes in the same way."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.config.checked import nearest
from ssl_jax.data import decode
from ssl_jax.data.transforms import INTERPOLATIONS, power_of_two, resize_and_crop, shorter_side_to

FITS = ("pad", "crop")


class Place(NamedTuple):
  """Where an image lies on the canvas: it is resized, then shifted by `offset` to the left and to the top."""

  full: tuple[int, int]  # (width, height) of the upright image at full resolution, in pixels
  resized: tuple[int, int]  # (width, height) after resizing
  offset: tuple[int, int]  # (left, top): pixels of the resized image that are cut off on these two sides
  size: int  # side of the canvas in pixels

  def filled(self) -> np.ndarray:
    """Returns i32[2]: (height, width) of the upper left part of the canvas that the image covers."""
    width, height = (min(r - o, self.size) for r, o in zip(self.resized, self.offset, strict=True))
    return np.array([height, width], np.int32)

  def fit(self, image: Image.Image, kind: Image.Resampling) -> Image.Image:
    """Resizes an image, and returns the part of it that lies on the canvas."""
    left, top = self.offset
    height, width = map(int, self.filled())
    return resize_and_crop(image, self.resized, (left, top, left + width, top + height), kind)


@dataclasses.dataclass(frozen=True)
class Fit:
  """A way to fit images of any size into a square canvas.

  "pad": an image whose longer side exceeds the canvas is reduced to it, and a smaller image keeps its size;
    the rest of the canvas is padded at the bottom and on the right.
  "crop": the shorter side is resized to the side of the canvas, and the centre square is cut out.
  """

  size: int  # side of the canvas in pixels
  fit: str  # "pad" or "crop"
  interpolation: str = "bilinear"  # for images; masks are resized by nearest neighbour

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
    """Computes where an image of this size lies on the canvas."""
    if self.fit == "crop":
      across, down = shorter_side_to(self.size, width, height)
      left, top = (round((side - self.size) / 2) for side in (across, down))
    else:
      factor = min(1.0, self.size / max(width, height))
      across, down = (max(1, min(self.size, round(side * factor))) for side in (width, height))
      left, top = 0, 0
    return Place((width, height), (across, down), (left, top), self.size)

  def image(self, opened: decode.Opened, place: Place) -> np.ndarray:
    """Returns the image uint8[size, size, 3], padded with black. Raises DecodeError for a damaged image."""
    spare = min(full / small for full, small in zip(place.full, place.resized, strict=True))
    loaded = decode.load(opened, shrink=power_of_two(spare / 2))
    return self._on_canvas(decode.to_array(place.fit(loaded, INTERPOLATIONS[self.interpolation])), place, 0)

  def mask(self, mask: np.ndarray, place: Place, padding: int) -> np.ndarray:
    """Fits a mask uint8[H, W]: returns uint8[size, size], resized by nearest neighbour."""
    return self._on_canvas(
      np.asarray(place.fit(Image.fromarray(mask), Image.Resampling.NEAREST)), place, padding
    )

  def boxes(self, boxes: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Fits boxes f32[N, 4]; returns (boxes f32[N, 4] on the canvas, clipped to the image; i64[K]: the indices
    of those that still have an area)."""
    factor = np.array([r / f for r, f in zip(place.resized, place.full, strict=True)] * 2, np.float32)
    moved = boxes * factor - np.array(place.offset * 2, np.float32)
    height, width = place.filled()
    moved = np.clip(moved, 0, np.array([width, height] * 2, np.float32))
    return moved, np.flatnonzero(((moved[:, 2:] - moved[:, :2]) > 0).all(1))

  def _on_canvas(self, found: np.ndarray, place: Place, padding: int) -> np.ndarray:
    height, width = place.filled()
    if found.shape[:2] == (self.size, self.size):
      return np.ascontiguousarray(found)
    canvas = np.full((self.size, self.size, *found.shape[2:]), padding, np.uint8)
    canvas[:height, :width] = found
    return canvas
