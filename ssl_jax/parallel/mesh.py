"""The mesh, the sharding of a state, and the jit of a train step for a mesh."""

from __future__ import annotations

import contextvars
import functools
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.core import PyTree, Step
from ssl_jax.parallel.placement import along_data, replicated

# The mesh of the train step that is being traced.
_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


def start() -> None:
  """Connects to the other processes of the job if SSL_JAX_DISTRIBUTED=1 is set in the environment.

  On a Cloud TPU pod or under Slurm JAX finds the processes itself; elsewhere set also
  JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID. A process that sends no heartbeat
  for SSL_JAX_PATIENCE seconds (default 30) is considered dead, and the job ends.
  """
  if os.environ.get("SSL_JAX_DISTRIBUTED") != "1":
    return
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  address = os.environ.get("JAX_COORDINATOR_ADDRESS")
  patience = int(os.environ.get("SSL_JAX_PATIENCE", "30"))
  job: dict[str, Any] = {}
  if address is not None:
    job = dict(
      coordinator_address=address,
      num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
      process_id=int(os.environ["JAX_PROCESS_ID"]),
    )
  jax.distributed.initialize(heartbeat_timeout_seconds=patience, **job)
  # Printed, because the service reports dead processes by their number.
  print(f"{whoami()}pid {os.getpid()}", file=sys.stderr, flush=True)


def whoami() -> str:
  """Returns the prefix "process 1 of 4 on HOST: " for messages of a process; "" if there is only one."""
  if not jax.distributed.is_initialized():
    return ""
  return f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: "


def make_mesh(devices=None) -> Mesh:
  """Makes a mesh over the given devices, by default all of all processes.

  Its axis is "data". Several TPU slices, between which data pass through the data centre's network, give it
  the axes "slice" and "data" (the devices within a slice); a batch is split over both.
  """
  devices = jax.devices() if devices is None else devices
  slices: dict[int, list] = {}
  for device in devices:
    # On GPUs the attribute tells machines apart; devices of a single slice may lack it.
    slice = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
    slices.setdefault(slice, []).append(device)
  each = [
    jax.make_mesh((len(one),), ("data",), axis_types=(AxisType.Auto,), devices=one)
    for _, one in sorted(slices.items())
  ]
  if len(each) == 1:
    return each[0]
  grid = np.stack([mesh.devices for mesh in each])
  return Mesh(grid, ("slice", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def abstract_mesh(devices: int) -> AbstractMesh:
  """Makes a mesh over a number of devices that need not exist, for checks and traces; 0: those that exist."""
  return AbstractMesh((devices or jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def fill_devices(batch_size: int, mesh: Mesh) -> int:
  """The least multiple of the number of devices that is `batch_size` or more."""
  return -(-batch_size // mesh.size) * mesh.size


def check_batch(batch_size: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> None:
  """Raises ValueError unless the global batch is divisible by the number of devices times `accumulate`."""
  unit = mesh.size * accumulate
  if batch_size % unit:
    below = batch_size // unit * unit or unit
    parts = f" times config.accumulate {accumulate}" if accumulate > 1 else ""
    raise ValueError(
      f"config.batch_size {batch_size} is not divisible by {mesh.size} devices{parts}; use a multiple of "
      f"{unit}, such as {below}"
    )


def state_sharding(state: PyTree, mesh: Mesh | AbstractMesh, kind: str = "replicate") -> PyTree:
  """Returns a NamedSharding for every leaf of a (possibly abstract) state.

  Args:
    kind: "replicate": every leaf is replicated. "fsdp": each leaf of at least 2**16 elements is sharded along
      its longest axis whose length is divisible by the number of devices of a slice; XLA gathers it where it
      is used. All slices hold the same parts, so that nothing is gathered from another slice.
  """

  def shard(leaf):
    axes = [a for a, n in enumerate(leaf.shape) if n % mesh.shape["data"] == 0]
    if kind == "replicate" or leaf.size < 2**16 or not axes:
      return NamedSharding(mesh, PartitionSpec())
    longest = max(axes, key=lambda a: leaf.shape[a])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

  return jax.tree.map(shard, state)


def compile_step(step: Step, mesh: Mesh, shardings: PyTree) -> Callable:
  """Wraps a train step in jit: state sharded as given and donated, batch axis sharded, metrics replicated."""
  batch, whole = along_data(mesh), replicated(mesh)

  @functools.wraps(step)
  def on_mesh(state, batch):
    before = _mesh.set(mesh)
    try:
      return step(state, batch)
    finally:
      _mesh.reset(before)

  return jax.jit(on_mesh, in_shardings=(shardings, batch), out_shardings=(shardings, whole), donate_argnums=0)


def constrain_rows(array: jax.Array) -> jax.Array:
  """Shards the rows of an array, which are images of the batch, over the devices of the step being compiled.

  This is needed only after the rows were reordered: the compiler may then lose their sharding and let every
  device compute all rows. Outside of `compile_step`, or if the rows are not divisible by the number of
  devices, the array is returned unchanged.
  """
  mesh = _mesh.get()
  if mesh is None or len(array) % mesh.size:
    return array
  return jax.lax.with_sharding_constraint(array, along_data(mesh))


def per_device(function: Callable, mesh: Mesh, cut: tuple[bool, ...]) -> Callable:
  """Wraps `function` so that every device runs it on its own rows, without collectives.

  Args:
    cut: for each argument, True if its rows are sharded over the devices, False if it is replicated. Results
      are sharded by rows.
  """
  split = along_data(mesh).spec
  specs = tuple(split if rows else PartitionSpec() for rows in cut)
  # check_vma=False, so that gradients of replicated arguments stay local to a device.
  return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)


def memory_limit(mesh: Mesh) -> int:
  """The bytes that programs may use on the smallest device of this process; 0 if it does not tell (CPU)."""
  return min((device.memory_stats() or {}).get("bytes_limit", 0) for device in mesh.local_devices)
