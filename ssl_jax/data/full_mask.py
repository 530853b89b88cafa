"""The host transform for evaluating segmentation: the image may be resized, its mask keeps its resolution."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssl_jax.data.elements import Elements, Record, ShapeDtype
from ssl_jax.data.fit import Fit, Place
from ssl_jax.data.mask_values import IGNORE, decode_pair
from ssl_jax.data.segments import FIELD as SEGMENTS
from ssl_jax.data.segments import decode_segments
from ssl_jax.data.transforms import shorter_side_to


def resized_to(short_side: int, width: int, height: int) -> tuple[int, int]:
  """Returns the (width, height) of an image after its shorter side is resized; 0: it keeps its size."""
  return shorter_side_to(short_side, width, height) if short_side else (width, height)


@dataclasses.dataclass(frozen=True)
class ImageAndFullMask:
  """Record {"image", "mask"} -> an image in the upper left of a canvas, and its mask at full resolution.

  The canvases must hold every image of the data set: `image_sizes` measures them. Score predictions at the
  resolution of the mask: the image covers `image_size` of its canvas, and the mask `mask_size` of its own.
  """

  short_side: int  # pixels to which the shorter side of an image is resized; 0: images keep their size
  image_canvas: tuple[int, int]  # (height, width) in pixels
  mask_canvas: tuple[int, int]
  interpolation: str = "bilinear"
  squash: bool = False  # images are resized to the whole of their canvas, and their proportions may change
  segments: bool = False  # whether the segments of the mask are an element too
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The image, padded with black; the mask, padded with IGNORE; and the (height, width) of each; perhaps
    the segments, see `decode_segments`, padded with 0.
    """
    more = {SEGMENTS: ShapeDtype(self.mask_canvas, np.int32)} if self.segments else {}
    return {
      **more,
      "image": ShapeDtype((*self.image_canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "mask": ShapeDtype(self.mask_canvas, np.uint8),
      "mask_size": ShapeDtype((2,), np.int32),
    }

  def check(self) -> ImageAndFullMask:
    """Returns itself. Raises ValueError for values out of range."""
    if self.short_side < 0:
      raise ValueError(f"short_side={self.short_side}; use a number of pixels, or 0 to keep the size")
    for canvas in (self.image_canvas, self.mask_canvas):
      Fit(canvas, "pad", self.interpolation).check()
    return self

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    """Returns the elements of one example.

    Raises: DecodeError as `decode_pair`; ValueError if the image or the mask exceeds its canvas.
    """
    opened, mask = decode_pair(record)
    height, width = self.image_canvas
    if not self.squash:
      width, height = resized_to(self.short_side, *opened.size)
    _check_fits("the image", (height, width), self.image_canvas, opened.size[::-1])
    _check_fits("the mask", mask.shape, self.mask_canvas, mask.shape)
    place = Place(opened.size, (width, height), (0, 0), self.image_canvas)
    more = {}
    if self.segments:
      more[SEGMENTS] = _padded(decode_segments(record[SEGMENTS], mask.shape), self.mask_canvas, 0)
    return {
      **more,
      "image": Fit(self.image_canvas, "pad", self.interpolation).image(opened, place),
      "image_size": place.filled(),
      "mask": _padded(mask, self.mask_canvas, IGNORE),
      "mask_size": np.array(mask.shape, np.int32),
    }


def _padded(values: np.ndarray, canvas: tuple[int, int], fill: int) -> np.ndarray:
  missing = [(0, full - side) for full, side in zip(canvas, values.shape)]
  return np.pad(values, missing, constant_values=fill)


def _check_fits(what: str, size: tuple[int, ...], canvas: tuple[int, int], stored: tuple[int, ...]) -> None:
  if size[0] > canvas[0] or size[1] > canvas[1]:
    raise ValueError(
      f"{what} of {stored[0]}x{stored[1]} pixels (height x width) takes {size[0]}x{size[1]}, but its canvas "
      f"has {canvas[0]}x{canvas[1]}; use a canvas that holds every image of the data set"
    )
