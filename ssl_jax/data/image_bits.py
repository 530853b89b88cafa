"""The host transform of frames whose targets are bits, such as those that `ssl-jax prepare sounds` mines."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssl_jax.data.elements import Elements, Record, ShapeDtype, clip_number
from ssl_jax.data.fit import Frame, image_transform
from ssl_jax.data.transforms import ImageTransform


@dataclasses.dataclass(frozen=True)
class ImageAndBits:
  """See `image_bits`."""

  pixels: ImageTransform
  bits: int

  @property
  def random(self) -> bool:
    """Whether the crops are random."""
    return self.pixels.random

  @property
  def elements(self) -> Elements:
    """The image, or its views, the label, the bits, and the clip that the image is of."""
    return {
      "image": ShapeDtype(tuple(self.pixels.shape), np.uint8),
      "label": ShapeDtype((), np.int32),
      "bits": ShapeDtype((self.bits,), np.bool_),
      "clip_number": ShapeDtype((), np.int32),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    if record["bits"].shape != (self.bits,):
      raise ValueError(
        f"a record has {len(record['bits'])} bits, but config.host.bits is {self.bits}; use "
        f"{len(record['bits'])}"
      )
    return {
      "image": self.pixels(rng, record["image"]),
      "label": record["label"],
      "bits": record["bits"],
      "clip_number": clip_number(record),
    }


def image_bits(frame: Frame, *, bits: int = 30) -> ImageAndBits:
  """Makes the transform for an image with bits.

  Elements: "image" and "label" as in `image`; "bits" bool[bits]; "clip_number" i32[], 31 bits of a checksum
    of the clip's name.

  Args:
    bits: how many a record has.
  Raises: ValueError if `bits` is not positive. The transform raises ValueError for a record with another
    number of bits.
  """
  if bits < 1:
    raise ValueError(f"config.host.bits is {bits}; use the number of bits of the mined data set, such as 30")
  return ImageAndBits(image_transform(frame), bits)
