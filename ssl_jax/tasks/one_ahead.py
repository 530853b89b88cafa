"""Runs a compiled function over evaluation batches, with the devices one batch ahead of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.parallel import placement


def to_devices(rows: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Makes a global batch from the rows of this process, padded with zeros to a multiple of its devices.

  Padded rows are not valid, because their "valid" is False.
  """
  short = -len(rows["valid"]) % len(mesh.local_devices)
  padded = {name: np.pad(leaf, [(0, short)] + [(0, 0)] * (leaf.ndim - 1)) for name, leaf in rows.items()}
  return placement.to_devices(padded, mesh)


def one_ahead(start: Callable[[Any], Any], batches: Iterator) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields the arrays of `start(batch)` on the host, after the computation of the next batch was started."""
  pending = None
  for batch in batches:
    ahead = start(batch)
    if pending is not None:
      yield tuple(map(np.asarray, pending))
    pending = ahead
  if pending is not None:
    yield tuple(map(np.asarray, pending))
