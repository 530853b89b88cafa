"""Host arrays to a mesh and back, with one process or several."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


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


def join(tree: Any, mesh: Mesh) -> Any:
  """Each process's own rows as one array split over all devices; its devices must divide the rows."""
  return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(along_data(mesh), rows), tree)


def fetch(array: jax.Array) -> np.ndarray:
  """The whole array on every process's host."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def _from_full_copy(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  if jax.process_count() == 1:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
