"""Transfers arrays between the host and a mesh, with one process or several."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PyTree = Any


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding in which every device holds the whole array."""
  return NamedSharding(mesh, P())


def along_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding that splits axis number `axis` over the devices of all slices, and no other axis."""
  return NamedSharding(mesh, P(*[None] * axis, ("slice", "data") if "slice" in mesh.axis_names else "data"))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Replicates every leaf on every device.

  Args:
    tree: its leaves are host arrays or PRNG keys, equal on all processes, or arrays on the mesh.
  """
  sharding = replicated(mesh)

  def put(leaf):
    if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
      return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return _from_full_copy(np.asarray(leaf), sharding)

  return jax.tree.map(put, tree)


def spread(array: np.ndarray, mesh: Mesh, *, axis: int = 0) -> jax.Array:
  """Shards a host array, equal on all processes, along `axis`; replicates it if `axis` is not divisible."""
  divides = array.shape[axis] % mesh.size == 0
  return _from_full_copy(array, along_data(mesh, axis) if divides else replicated(mesh))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Returns i64[b]: the rows of a global batch that are on this process's devices, in ascending order.

  They are not contiguous if the devices of different processes alternate in the mesh, as on TPU slices.

  Raises: ValueError if there are several processes and the batch is not divisible by the number of devices.
  """
  if jax.process_count() == 1:
    return np.arange(batch_size)
  return np.concatenate([np.arange(start, stop) for start, stop, _ in _pieces(mesh, batch_size)])


def to_devices(tree: PyTree, mesh: Mesh) -> PyTree:
  """Makes a global batch, sharded along the first axis, from the rows of this process (see `local_rows`).

  Leaves that are on the devices already stay as they are. The function does not wait for the copy.

  Raises: ValueError if the rows are not divisible by the number of devices.
  """
  local = len(mesh.local_devices)

  def put(rows: np.ndarray | jax.Array) -> jax.Array:
    if isinstance(rows, jax.Array):
      return rows
    if jax.process_count() == 1:
      return jax.device_put(rows, along_data(mesh))
    if len(rows) % local:
      raise ValueError(f"{len(rows)} rows are not divisible by the {local} devices of this process")
    shape = (len(rows) // local * mesh.size, *rows.shape[1:])
    parts = zip(np.split(rows, local), _pieces(mesh, shape[0]), strict=True)
    arrays = [jax.device_put(part, device) for part, (_, _, device) in parts]
    return jax.make_array_from_single_device_arrays(shape, along_data(mesh), arrays)

  # With several processes JAX's transfer guard takes this copy for an implicit one.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(put, tree)


def prefetch(batches: Iterator[dict[str, Any]], mesh: Mesh, ahead: int = 2) -> Iterator[dict]:
  """Starts the copy of `ahead` further batches to the devices, so that a step does not wait for a copy."""
  waiting = collections.deque()
  for batch in batches:
    waiting.append(to_devices(batch, mesh))
    if len(waiting) > ahead:
      yield waiting.popleft()
  yield from waiting


def _pieces(mesh: Mesh, batch_size: int) -> list[tuple[int, int, Any]]:
  """Returns (first row, row after the last, device) for each device of this process, in the order of rows."""
  if batch_size % mesh.size:
    raise ValueError(f"a batch of {batch_size} is not divisible by {mesh.size} devices")
  found = along_data(mesh).addressable_devices_indices_map((batch_size,))
  slices = [(cast(tuple[slice], index)[0].indices(batch_size), device) for device, index in found.items()]
  spans = [(start, stop, device) for (start, stop, _), device in slices]
  return sorted(spans, key=lambda span: span[0])


def fetch(array: jax.Array) -> np.ndarray:
  """Returns the whole array on every host; if it is sharded over several processes, all must call this."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def _from_full_copy(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  if jax.process_count() == 1:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
