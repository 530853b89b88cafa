"""Host arrays to a mesh and back, with one process or several."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PyTree = Any


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def along_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Axis number `axis` split over the devices, the others whole."""
  return NamedSharding(mesh, P(*[None] * axis, "data"))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Every leaf whole on every device. Leaves: host arrays or keys, equal on all processes, or arrays on the mesh."""
  sharding = replicated(mesh)

  def put(leaf):
    if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
      return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return _from_full_copy(np.asarray(leaf), sharding)

  return jax.tree.map(put, tree)


def spread(array: np.ndarray, mesh: Mesh, *, axis: int = 0) -> jax.Array:
  """A full host copy, the same on every process, split along `axis`; left whole if it does not divide."""
  divides = array.shape[axis] % mesh.size == 0
  return _from_full_copy(array, along_data(mesh, axis) if divides else replicated(mesh))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """i64[b]: the places in a global batch whose rows lie on this process's devices, ascending.

  They are not one block where the devices of several processes take turns in the mesh, as they do on TPU slices.
  Raises: ValueError if there are several processes and the devices do not divide the batch.
  """
  if jax.process_count() == 1:
    return np.arange(batch_size)
  return np.concatenate([np.arange(start, stop) for start, stop, _ in _pieces(mesh, batch_size)])


def to_devices(tree: PyTree, mesh: Mesh) -> PyTree:
  """A global batch split along its first axis over the mesh, from the rows that this process loaded (`local_rows`).

  Does not wait for the copy.
  Raises: ValueError if the devices do not divide the rows.
  """
  local = len(mesh.local_devices)

  def put(rows: np.ndarray) -> jax.Array:
    if jax.process_count() == 1:
      return jax.device_put(rows, along_data(mesh))
    if len(rows) % local:
      raise ValueError(f"{len(rows)} rows do not divide over the {local} devices of this process")
    shape = (len(rows) // local * mesh.size, *rows.shape[1:])
    parts = zip(np.split(rows, local), _pieces(mesh, shape[0]), strict=True)
    arrays = [jax.device_put(part, device) for part, (_, _, device) in parts]
    return jax.make_array_from_single_device_arrays(shape, along_data(mesh), arrays)

  # With several processes jax takes this copy for an accidental one.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(put, tree)


def prefetch(batches: Iterator[dict[str, np.ndarray]], mesh: Mesh, ahead: int = 2) -> Iterator[dict]:
  """Keeps `ahead` batches on their way to the devices, so that a step never waits for a copy."""
  waiting = collections.deque()
  for batch in batches:
    waiting.append(to_devices(batch, mesh))
    if len(waiting) > ahead:
      yield waiting.popleft()
  yield from waiting


def _pieces(mesh: Mesh, batch_size: int) -> list[tuple[int, int, jax.Device]]:
  """(First row, row after the last, device) of each device of this process, in the order of the rows."""
  if batch_size % mesh.size:
    raise ValueError(f"a batch of {batch_size} does not divide over {mesh.size} devices")
  found = along_data(mesh).addressable_devices_indices_map((batch_size,))
  spans = [(*rows.indices(batch_size)[:2], device) for device, (rows,) in found.items()]
  return sorted(spans, key=lambda span: span[0])


def fetch(array: jax.Array) -> np.ndarray:
  """The whole array on every process's host."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def _from_full_copy(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  if jax.process_count() == 1:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
