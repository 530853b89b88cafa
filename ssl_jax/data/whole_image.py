"""The host transform for evaluating detectors: a whole image, resized, in the upper left of a canvas."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssl_jax.data.decode import open_image
from ssl_jax.data.elements import Elements, Record, ShapeDtype
from ssl_jax.data.fit import Fit, Place


def resized_to(shorter: int, longest: int, width: int, height: int) -> tuple[int, int]:
  """Returns the (width, height) of an image whose shorter side becomes `shorter` and whose longer side at
  most `longest` pixels, rounded to the nearest; a 0 sets no length.
  """
  factor = shorter / min(width, height) if shorter else 1.0
  if longest:
    factor = min(factor, longest / max(width, height))
  return max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)


def canvas_of(sizes: np.ndarray, shorter: int, longest: int) -> tuple[int, int]:
  """Returns the (height, width) of the smallest canvas that holds every resized image.

  Args:
    sizes: i32[N, 2], (height, width) of the images, N >= 1.
  """
  found = [resized_to(shorter, longest, width, height) for height, width in np.unique(sizes, axis=0).tolist()]
  width, height = (max(side) for side in zip(*found, strict=True))
  return height, width


@dataclasses.dataclass(frozen=True)
class WholeImage:
  """Record {"image"} -> the resized image on a canvas, its size there, and its full size."""

  shorter: int  # pixels, see `resized_to`
  longest: int
  canvas: tuple[int, int]  # (height, width), see `canvas_of`
  interpolation: str = "bilinear"
  squash: bool = False  # the image is resized to the whole of the canvas, and its proportions may change
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The image, padded with black, and two sizes (height, width)."""
    return {
      "image": ShapeDtype((*self.canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "full_size": ShapeDtype((2,), np.int32),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    """Returns the elements. Raises DecodeError; ValueError for an image that exceeds the canvas."""
    opened = open_image(record["image"])
    height, width = self.canvas
    if not self.squash:
      width, height = resized_to(self.shorter, self.longest, *opened.size)
    if height > self.canvas[0] or width > self.canvas[1]:
      raise ValueError(
        f"an image becomes {height}x{width} pixels (height x width), but its canvas has "
        f"{self.canvas[0]}x{self.canvas[1]}; use a canvas that holds every image of the data set"
      )
    place = Place(opened.size, (width, height), (0, 0), self.canvas)
    return {
      "image": Fit(self.canvas, "pad", self.interpolation).image(opened, place),
      "image_size": place.filled(),
      "full_size": np.array(opened.size[::-1], np.int32),
    }
