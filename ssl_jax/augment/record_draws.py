"""What several augmentations of whole records draw and check."""

from __future__ import annotations

from collections.abc import Callable

import jax

from ssl_jax.augment import colour, dense_points
from ssl_jax.augment.record_moves import Recolour, Record
from ssl_jax.core import Key

RecordAugment = Callable[[Key, Record], Record]
Scale = tuple[float, float]


def check(size: int, flip: float) -> None:
  """Raises ValueError for a size or a probability out of range."""
  if size < 1:
    raise ValueError(f"config.augment.size is {size}; use at least 1")
  if not 0 <= flip <= 1:
    raise ValueError(f"config.augment.flip is {flip}; use a probability in [0, 1]")


def random_flip(key: Key, flip: float, record: Record) -> jax.Array:
  """bool[]. Raises ValueError for a record that must not be mirrored, see `dense_points.check_flip`."""
  dense_points.check_flip(record, flip)
  return jax.random.bernoulli(key, flip)


def random_colours(key: Key, photometric: bool) -> Recolour | None:
  """A random change of colours, see `colour.sample_distortion`; None if `photometric` is False."""
  if not photometric:
    return None
  drawn = colour.sample_distortion(key)
  return lambda planes: colour.distort(planes, drawn)
