"""Generates images from their index: for tests, and for benchmarks that must not depend on a disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Source

SIZES = {"train": 2048, "test": 512}
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticReader:
  """Generates each image when it is read."""

  numbers: np.ndarray  # i64[N]: the seeds of the images, distinct over all splits
  image_size: int

  def __len__(self) -> int:
    return len(self.numbers)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [
      {"image": render_stripes(number, self.image_size), "label": number % NUM_CLASSES}
      for number in (int(self.numbers[i]) for i in indices)
    ]

  def name(self, index: int) -> str:
    return f"synthetic image {self.numbers[index]}"


def open_synthetic(split: str, image_size: int) -> Source:
  """Opens striped images of ten balanced classes, the same on every machine.

  Raises: ValueError for an unknown split or a size below 1.
  """
  if image_size < 1:
    raise ValueError(f"image_size={image_size}; use at least 1 pixel")
  first = {name: sum(list(SIZES.values())[:place]) for place, name in enumerate(SIZES)}
  numbers = [first[name] + np.asarray(places) for name, places in splits.resolve(split, SIZES)]
  names = tuple(f"stripes at {18 * c} degrees" for c in range(NUM_CLASSES))
  reader = SyntheticReader(np.concatenate(numbers), image_size)
  return Source(reader, NUM_CLASSES, names, (image_size, image_size, 3))


def render_stripes(number: int, size: int) -> np.ndarray:
  """Generates uint8[size, size, 3]: stripes whose direction, and weakly whose colour, depend on the class.

  The class is `number % 10`. The phase and contrast of the stripes and the noise differ from image to image,
  so that a comparison of single pixels is less accurate than what a network can learn.
  """
  rng = np.random.default_rng((number, size))
  angle = np.pi * (number % NUM_CLASSES) / NUM_CLASSES
  y, x = np.mgrid[:size, :size] / size
  wave = np.sin(2 * np.pi * (4 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform()))
  colour = 128 + 40 * np.cos(2 * angle + np.array([0, 2, 4]) * np.pi / 3) + rng.normal(0, 10, 3)
  image = colour + rng.uniform(40, 70) * wave[..., None] + rng.normal(0, 12, (size, size, 3))
  return np.clip(image, 0, 255).astype(np.uint8)
