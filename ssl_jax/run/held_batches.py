"""Training batches that each device gathers from a copy of the whole data set in its memory."""

from __future__ import annotations

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.data import bad_records, pipeline
from ssl_jax.data.memory import MemoryReader
from ssl_jax.data.order import TrainOrder
from ssl_jax.data.reader import Source

_SHARE = 0.5  # of a device's memory, that the data may take


class HeldBatches:
  """Iterator and context manager: the batches of `pipeline.train_batches`, bit for bit, made on the devices.

  The host sends the numbers of the records, 4 bytes each, and no pixels.
  """

  def __init__(
    self, source: Source, mesh: Mesh, *, batch_size: int, seed: int, steps: range, max_bad_fraction: float
  ):
    """Sends the data set to every device.

    Args:
      source: its reader is a MemoryReader, whose arrays are the elements of a record.
      batch_size, seed, max_bad_fraction: as in `pipeline.train_batches`.
      steps: those to come.
    Raises: ValueError if the data take more than half of a device's memory, or too many records are bad.
    """
    pipeline.steps_per_epoch(source, batch_size)
    self._held = cast(MemoryReader, source.reader)
    self._good = bad_records.replaced(source, self._held.bad, max_bad_fraction)
    self._mesh, self._steps = mesh, iter(steps)
    self._order = TrainOrder(len(source), batch_size, seed, parallel.local_rows(mesh, batch_size))
    _check_memory(self._held, mesh)
    self._arrays: Any = parallel.replicate(self._held.arrays, mesh)

  def __iter__(self) -> HeldBatches:
    return self

  def __next__(self) -> dict[str, jax.Array]:
    numbers = self._good[self._order.rows(next(self._steps)).indices].astype(np.int32)
    return _take(
      self._arrays, parallel.to_devices(numbers, self._mesh), sharding=parallel.along_data(self._mesh)
    )

  def input_rate(self) -> float:
    """nan: the host makes no batches."""
    return float("nan")

  def __enter__(self) -> HeldBatches:
    return self

  def __exit__(self, *_) -> None:
    self._arrays = None  # the memory of the devices is free again


@functools.partial(jax.jit, static_argnames="sharding")
def _take(arrays: dict[str, jax.Array], numbers: jax.Array, *, sharding) -> dict[str, jax.Array]:
  rows = {name: jnp.take(array, numbers, axis=0, mode="clip") for name, array in arrays.items()}
  return jax.lax.with_sharding_constraint(rows, sharding)


def _check_memory(held: MemoryReader, mesh: Mesh) -> None:
  needed = sum(array.nbytes for array in held.arrays.values())
  limit = parallel.memory_limit(mesh)
  if limit and needed > _SHARE * limit:
    raise ValueError(
      f"config.data.device_cache is True, but the data take {needed / 2**30:.1f} GiB of the "
      f"{limit / 2**30:.1f} GiB of each device, at most half are allowed; use device_cache=False"
    )
