"""Samplers of random crops on the host: (rng, width, height) -> (left, top, right, bottom) in pixels.

They draw from the distributions of the samplers of the same names in augment/crops.py.
"""

from __future__ import annotations

import math

import numpy as np

ATTEMPTS = 10


def random_box(
  rng: np.random.Generator,
  width: int,
  height: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
  """Draws a crop (left, top, right, bottom) in pixels, as torchvision does.

  Up to ten times, the fraction of the area is drawn uniformly from `scale` and the logarithm of
  width / height uniformly between those of `ratio`; the first crop that fits into the image is taken. If none
  fits, the result is the largest centred crop whose proportions are allowed.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(ATTEMPTS):
    area, proportion = width * height * rng.uniform(*scale), math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
      return left, top, left + w, top + h
  w = min(width, max(round(height * ratio[1]), 1))
  h = min(height, max(round(width / ratio[0]), 1))
  left, top = (width - w) // 2, (height - h) // 2
  return left, top, left + w, top + h


def random_box_byol(
  rng: np.random.Generator,
  width: int,
  height: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
  """Draws a crop as the linear probes of BYOL and MAE do: once, with each side clipped to the image."""
  area = width * height * rng.uniform(*scale)
  proportion = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
  w = min(max(round(math.sqrt(area * proportion)), 1), width)
  h = min(max(round(math.sqrt(area / proportion)), 1), height)
  left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
  return left, top, left + w, top + h


def random_box_tf(
  rng: np.random.Generator,
  width: int,
  height: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  min_covered: float = 0.1,
  attempts: int = 100,
) -> tuple[int, int, int, int]:
  """Draws a crop as TensorFlow's sample_distorted_bounding_box does with the whole image as the object.

  It is `crops.sample_crop_tf` of the device, whose docstring holds the definition.
  """
  least, most = (fraction * width * height for fraction in scale)
  for _ in range(attempts):
    aspect = rng.uniform(*ratio)
    tallest = round(math.sqrt(most / aspect))
    if round(tallest * aspect) > width:
      tallest = math.floor((width + 0.5 - 1e-4) / aspect)
    tallest = min(tallest, height)
    h = int(rng.integers(min(round(math.sqrt(least / aspect)), tallest), tallest + 1))
    h += h * round(h * aspect) < least
    h -= h * round(h * aspect) > most
    w = round(h * aspect)
    if 0 < w <= width and 0 < h <= height and max(least, min_covered * width * height) <= w * h <= most:
      left, top = int(rng.integers(max(width - w, 1))), int(rng.integers(max(height - h, 1)))
      return left, top, left + w, top + h
  return 0, 0, width, height


SAMPLERS = {"pt": random_box, "tf": random_box_tf, "byol": random_box_byol}
