"""Host transforms of frames that were mined from clips and are stored as images."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from ssl_jax.data import decode
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Elements, Record, ShapeDtype, clip_number
from ssl_jax.data.fit import Fit, Frame, make_fit
from ssl_jax.data.transforms import ImageTransform


@dataclasses.dataclass(frozen=True)
class MinedFrames:
  """See `stored_frames`."""

  fitting: Fit
  count: int
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The frames, the part of the canvas that they cover, their clip and numbers in it, and the label."""
    return {
      "clip": ShapeDtype((self.count, *self.fitting.canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "clip_number": ShapeDtype((), np.int32),
      "numbers": ShapeDtype((self.count,), np.int32),
      "label": ShapeDtype((), np.int32),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    opened = [decode.open_image(frame) for frame in record["frames"]]
    if len(opened) != self.count:
      raise ValueError(
        f"a record has {len(opened)} frames, but config.host.count is {self.count}; use {len(opened)}"
      )
    place = self.fitting.place(*opened[0].size)
    if any(frame.size != opened[0].size for frame in opened):
      raise DecodeError(f"its frames differ in size: {', '.join(sorted({str(f.size) for f in opened}))}")
    return {
      "clip": np.stack([self.fitting.image(frame, place) for frame in opened]),
      "image_size": place.filled(),
      "clip_number": clip_number(record),
      "numbers": record["numbers"],
      "label": record["label"],
    }


@dataclasses.dataclass(frozen=True)
class MiddleOfStored:
  """The frame in the middle of a record as an image: {"frames", "label"} -> {"image", "label"}."""

  pixels: ImageTransform

  @property
  def random(self) -> bool:
    """Whether the crops are random."""
    return self.pixels.random

  @property
  def elements(self) -> Elements:
    """The image, or its views, and the label."""
    return {"image": ShapeDtype(tuple(self.pixels.shape), np.uint8), "label": ShapeDtype((), np.int32)}

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    frames = record["frames"]
    return {"image": self.pixels(rng, frames[len(frames) // 2]), "label": record["label"]}


def stored_frames(
  frame: Frame,
  *,
  count: int = 5,
  fit: Literal["pad", "crop", "squash"] = "crop",
  height: int = 0,
  width: int = 0,
) -> MinedFrames:
  """Makes the transform for frames of a clip that were mined, such as by `ssl-jax prepare tuples`.

  Elements: "clip" uint8[count, height, width, 3]; "image_size" i32[2], the (height, width) of the upper left
    part of the canvas that the frames cover; "clip_number" i32[], 31 bits of a checksum of the clip's name;
    "label" i32[], -1 if there is none.

  Args:
    count: number of frames in each record.
    fit, height, width: as in `frames`.
  Raises: ValueError for values out of range. The transform raises ValueError for a record of another number
    of frames, and DecodeError for frames that are damaged or differ in size.
  """
  if count < 1:
    raise ValueError(f"config.host.count is {count}; use the number of frames in a record, such as 5")
  return MinedFrames(make_fit(frame, fit, "stored_frames", height, width), count)
