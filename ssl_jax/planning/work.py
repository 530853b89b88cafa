"""A program to plan, and the arrays that it would take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssl_jax.parallel.placement import along_data


class Work(NamedTuple):
  """A program that can be lowered for any mesh."""

  lower: Callable[[Mesh], jax.stages.Lowered]
  images: Callable[[Mesh], int]  # number of images that one call processes, over all chips
  parts: dict[str, int]  # bytes per chip of each group of arguments, by name


def rows_of(shape: tuple[int, ...], dtype, mesh: Mesh) -> jax.ShapeDtypeStruct:
  """An array of this shape whose rows are split over the chips."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=along_data(mesh))


def bytes_per_chip(tree: Any) -> int:
  """Total bytes of the leaves on one chip; random keys are not counted."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  )
