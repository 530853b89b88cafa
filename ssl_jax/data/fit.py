"""Fits an image of any size into a canvas, and transforms its mask and its boxes in the same way."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.config.checked import nearest
from ssl_jax.data import decode
from ssl_jax.data.transforms import (
  INTERPOLATIONS,
  ImageTransform,
  covering,
  power_of_two,
  random_resized_crop,
  resize_and_crop,
  resize_center_crop,
)

FITS = ("pad", "crop", "squash")


class Frame(NamedTuple):
  """The size and form in which images are delivered, from `config.data` and `config.augment`."""

  size: int  # side of the image, or of each view, in pixels
  interpolation: str = "bilinear"
  views: int = 0  # crops that the host cuts from each image; 0: none, the device crops
  scale: tuple[float, float] = (0.08, 1.0)  # least and greatest fraction of the area that a host crop covers
  sampler: str = "pt"  # of host crops, and whether their resize is antialiased; see transforms.py
  antialias: bool = True


class Place(NamedTuple):
  """Where an image lies on the canvas: it is resized, then shifted by `offset` to the left and to the top."""

  full: tuple[int, int]  # (width, height) of the upright image at full resolution, in pixels
  resized: tuple[int, int]  # (width, height) after resizing
  offset: tuple[int, int]  # (left, top): pixels of the resized image that are cut off on these two sides
  canvas: tuple[int, int]  # (height, width) in pixels

  def filled(self) -> np.ndarray:
    """Returns i32[2]: (height, width) of the upper left part of the canvas that the image covers."""
    width, height = (r - o for r, o in zip(self.resized, self.offset, strict=True))
    return np.minimum([height, width], self.canvas).astype(np.int32)

  def scale(self) -> np.ndarray:
    """Returns f32[4]: the factors by which resizing multiplies the coordinates of a box."""
    return np.array([r / f for r, f in zip(self.resized, self.full, strict=True)] * 2, np.float32)

  def shift(self) -> np.ndarray:
    """Returns f32[4]: what is then subtracted from the coordinates of a box."""
    return np.array(self.offset * 2, np.float32)

  def origin_of(self, boxes: np.ndarray) -> np.ndarray:
    """Boxes f32[N, 4] on the canvas, inside the image, as boxes of the image at full resolution."""
    width, height = self.full
    return np.clip((boxes + self.shift()) / self.scale(), 0, np.array([width, height] * 2, np.float32))

  def fit(self, image: Image.Image, kind: Image.Resampling) -> Image.Image:
    """Resizes an image, and returns the part of it that lies on the canvas."""
    left, top = self.offset
    height, width = map(int, self.filled())
    return resize_and_crop(image, self.resized, (left, top, left + width, top + height), kind)


@dataclasses.dataclass(frozen=True)
class Fit:
  """A way to fit images of any size into a canvas.

  "pad": an image that exceeds the canvas is reduced until it fits, and a smaller image keeps its size; the
    rest of the canvas is padded at the bottom and on the right.
  "crop": the image is resized to the smallest size that covers the canvas, and its centre is cut out.
  "squash": the image is resized to the canvas, and its proportions may change.
  """

  size: int | tuple[int, int]  # of the canvas in pixels: the side of a square, or (height, width)
  fit: str  # one of FITS
  interpolation: str = "bilinear"  # for images; masks are resized by nearest neighbour

  @property
  def canvas(self) -> tuple[int, int]:
    """The (height, width) of the canvas in pixels."""
    return self.size if isinstance(self.size, tuple) else (self.size, self.size)

  def check(self) -> Fit:
    """Returns itself. Raises ValueError for values out of range."""
    if min(self.canvas) < 1:
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
    canvas = self.canvas
    down, across = canvas
    if self.fit == "squash":
      return Place((width, height), (across, down), (0, 0), canvas)
    if self.fit == "crop":
      resized = covering(across, down, width, height)
      offset = (round((resized[0] - across) / 2), round((resized[1] - down) / 2))
      return Place((width, height), resized, offset, canvas)
    factor = min(1.0, across / width, down / height)
    resized = (max(1, min(across, round(width * factor))), max(1, min(down, round(height * factor))))
    return Place((width, height), resized, (0, 0), canvas)

  def image(self, opened: decode.Opened, place: Place) -> np.ndarray:
    """Returns the image uint8[*canvas, 3], padded with black. Raises DecodeError for a damaged image."""
    spare = min(full / small for full, small in zip(place.full, place.resized, strict=True))
    loaded = decode.load(opened, shrink=power_of_two(spare / 2))
    return self.on_canvas(decode.to_array(place.fit(loaded, INTERPOLATIONS[self.interpolation])), place, 0)

  def mask(self, mask: np.ndarray, place: Place, padding: int) -> np.ndarray:
    """Fits a mask uint8[H, W]: returns uint8[*canvas], resized by nearest neighbour."""
    return self.on_canvas(
      np.asarray(place.fit(Image.fromarray(mask), Image.Resampling.NEAREST)), place, padding
    )

  def boxes(self, boxes: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Fits boxes f32[N, 4]; returns (boxes f32[N, 4] on the canvas, clipped to the image; i64[K]: the indices
    of those that still have an area)."""
    moved = boxes * place.scale() - place.shift()
    height, width = place.filled()
    moved = np.clip(moved, 0, np.array([width, height] * 2, np.float32))
    return moved, np.flatnonzero(((moved[:, 2:] - moved[:, :2]) > 0).all(1))

  def on_canvas(self, found: np.ndarray, place: Place, padding: int) -> np.ndarray:
    """Pads pixels [*place.filled(), ...] to the canvas at the bottom and on the right."""
    height, width = place.filled()
    if found.shape[:2] == self.canvas:
      return np.ascontiguousarray(found)
    canvas = np.full((*self.canvas, *found.shape[2:]), padding, np.uint8)
    canvas[:height, :width] = found
    return canvas


def make_fit(frame: Frame, fit: str, name: str, height: int, width: int) -> Fit:
  """Makes the fit of the host transform called `name`.

  Args:
    height, width: of the canvas in pixels; 0: `frame.size`.
  Raises: ValueError if the host is to cut views, for an unknown `fit`, or if a side is negative.
  """
  if frame.views:
    raise ValueError(
      f"config.data.crop is 'host', but config.host.name {name!r} delivers whole images; "
      "use config.data.crop='device'"
    )
  for side, value in (("height", height), ("width", width)):
    if value < 0:
      raise ValueError(f"config.host.{side} is {value}; use a number of pixels, or 0 for config.data.size")
  return Fit((height or frame.size, width or frame.size), fit, frame.interpolation).check()


def image_transform(frame: Frame) -> ImageTransform:
  """Makes the transform of an image into one square, or into the views that the host cuts."""
  if not frame.views:
    return resize_center_crop(frame.size, interpolation=frame.interpolation)
  return random_resized_crop(
    frame.size,
    scale=frame.scale,
    views=frame.views,
    interpolation=frame.interpolation,
    sampler=frame.sampler,
    antialias=frame.antialias,
  )
