"""Whole-record augmentation around the object of a mask."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax.augment.record_draws import RecordAugment, Scale, check, random_colours, random_flip
from ssl_jax.augment.record_moves import IGNORE, MEAN, Colour, Record, Window, image_size, move
from ssl_jax.core import Key


def object_crop(
  *,
  size: int = 224,
  context: Scale = (1.5, 2.0),
  shift: int = 16,
  jitter: float = 0.25,
  proportions: Literal["square", "image"] = "square",
  photometric: bool = False,
  flip: float = 0.5,
  fill: Colour = MEAN,
) -> RecordAugment:
  """A window around the object of the mask, then a flip.

  The tight box of all pixels that are neither 0, the background, nor 255 is enlarged. The window stays inside
  of the image along each side along which it fits; along a side that is too short the image is centred and
  padded. A record without an object is seen whole.

  Args:
    size: side of the result in pixels.
    context: least and greatest factor by which the box is enlarged, drawn uniformly.
    shift: most pixels of the result by which the window is moved, uniform for both axes.
    jitter: the window is scaled by 2^x, x uniform in [-jitter, jitter], in addition.
    proportions: "square": of the window, whose side is that of the longer side of the box; "image": those of
      the image, so that the largest window is the whole image, squashed as in evaluation.
    photometric: whether to change the colours, see `colour.sample_distortion`.
    flip: probability of mirroring left and right.
    fill: colour of the padding, in [0, 1].
  Raises: ValueError for values out of range. The augmentation raises it when it is traced, for a record
    without a mask.
  Source: Pathak et al. 2017, section 4; Pinheiro et al. 2015 (DeepMask), section 4 (shift and scale).
  """
  check(size, flip)
  if not 1 <= context[0] <= context[1]:
    raise ValueError(f"config.augment.context is {context}; use factors with 1 <= least <= greatest")
  for name, value in (("shift", shift), ("jitter", jitter)):
    if value < 0:
      raise ValueError(f"config.augment.{name} is {value}; use 0 for none, or a positive number")

  def augment(key: Key, record: Record) -> Record:
    context_key, shift_key, jitter_key, flip_key, colour_key = jax.random.split(key, 5)
    bounds = image_size(record).astype(jnp.float32)
    first, last, found = _object_box(record)
    unit = bounds if proportions == "image" else jnp.ones(2)
    whole = (bounds / unit).max()
    factor = jax.random.uniform(context_key, minval=context[0], maxval=context[1])
    factor *= 2 ** jax.random.uniform(jitter_key, minval=-jitter, maxval=jitter)
    enlarged = jnp.minimum(factor * ((last - first) / unit).max(), whole)
    sides = jnp.where(found, enlarged, whole) * unit
    moved = jax.random.uniform(shift_key, (2,), minval=-shift, maxval=shift) * sides / size
    corner = jnp.where(found, (first + last - sides) / 2 + moved, 0.0)
    spare = bounds - sides
    corner = jnp.where(spare > 0, jnp.clip(corner, 0, jnp.maximum(spare, 0)), spare / 2)
    window = Window(*corner, *sides, flip=random_flip(flip_key, flip, record))
    recolour = random_colours(colour_key, photometric)
    return move(record, window, size, fill, max(record["mask"].shape) / size, recolour)

  return augment


def _object_box(record: Record) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(f32[2]: (top, left) of the object of the mask, f32[2]: (bottom, right), bool[]: there is an object).

  Raises: ValueError for a record without a mask.
  """
  if "mask" not in record:
    raise ValueError(
      "config.augment.name is 'object_crop', but the records have no 'mask' to find the object in, only "
      f"{', '.join(sorted(record))}; use data with masks and config.host.name='image_mask'"
    )
  inside = (record["mask"] != 0) & (record["mask"] != IGNORE)
  lines = [inside.any(1), inside.any(0)]
  first = jnp.stack([jnp.argmax(line) for line in lines])
  last = jnp.stack([len(line) - jnp.argmax(line[::-1]) for line in lines])
  return first.astype(jnp.float32), last.astype(jnp.float32), inside.any()
