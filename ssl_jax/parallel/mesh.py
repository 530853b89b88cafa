"""Devices: the mesh, who holds what, and a step compiled for it. Nothing else names a device or an axis."""

from __future__ import annotations

import contextvars
import functools
import os
import socket
import sys
from collections.abc import Callable

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.core import PyTree, Step

BATCH = PartitionSpec("data")
_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
  "mesh", default=None
)  # of the step that is being traced


def start() -> None:
  """Joins the other processes of the job, where the environment says that there are any.

  On a Cloud TPU pod or under Slurm jax finds them itself when SSL_JAX_DISTRIBUTED=1; elsewhere set
  JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID as well. A process that says nothing for
  SSL_JAX_PATIENCE seconds (30) is taken for dead, and the job ends.
  """
  if os.environ.get("SSL_JAX_DISTRIBUTED") != "1":
    return
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  address = os.environ.get("JAX_COORDINATOR_ADDRESS")
  patience = int(os.environ.get("SSL_JAX_PATIENCE", "30"))
  jax.distributed.initialize(
    heartbeat_timeout_seconds=patience,
    **(
      {}
      if address is None
      else dict(
        coordinator_address=address,
        num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
        process_id=int(os.environ["JAX_PROCESS_ID"]),
      )
    ),
  )
  print(f"{whoami()}pid {os.getpid()}", file=sys.stderr, flush=True)  # the service names the dead by number


def whoami() -> str:
  """ "process 1 of 4 on HOST: ", for what a process says of itself; "" where there is only one."""
  if not jax.distributed.is_initialized():
    return ""
  return f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: "


def make_mesh(devices=None) -> Mesh:
  """A mesh with the one axis "data" over all devices of all processes, or the given ones."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Raises ValueError unless the global batch divides over the devices, and each device's rows into `accumulate` parts."""
  unit = mesh.size * accumulate
  if batch_size % unit:
    below = batch_size // unit * unit or unit
    parts = f" times config.accumulate {accumulate}" if accumulate > 1 else ""
    raise ValueError(
      f"config.batch_size {batch_size} is not divisible by {mesh.size} devices{parts}; use a multiple of "
      f"{unit}, such as {below}"
    )


def state_sharding(state: PyTree, mesh: Mesh, kind: str = "replicate") -> PyTree:
  """NamedShardings for a (possibly abstract) state.

  Args:
    kind: "replicate": every device holds everything. "fsdp": each large leaf is cut along its longest axis that
      divides by the number of devices; XLA gathers it where it is used.
  """

  def shard(leaf):
    axes = [a for a, n in enumerate(leaf.shape) if n % mesh.size == 0]
    if kind == "replicate" or leaf.size < 2**16 or not axes:
      return NamedSharding(mesh, PartitionSpec())
    longest = max(axes, key=lambda a: leaf.shape[a])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

  return jax.tree.map(shard, state)


def compile_step(step: Step, mesh: Mesh, shardings: PyTree) -> Callable:
  """jit of a train step: state sharded as given and donated, batch cut along its first axis, metrics replicated."""
  batch, whole = NamedSharding(mesh, BATCH), NamedSharding(mesh, PartitionSpec())

  @functools.wraps(step)
  def on_mesh(state, batch):
    before = _mesh.set(mesh)
    try:
      return step(state, batch)
    finally:
      _mesh.reset(before)

  return jax.jit(on_mesh, in_shardings=(shardings, batch), out_shardings=(shardings, whole), donate_argnums=0)


def constrain_rows(array: jax.Array) -> jax.Array:
  """`array`, whose rows are images of the batch, cut over the devices of the step that is being compiled.

  Only for rows that were put into another order: the compiler may then lose sight of them and let every device work on all.
  """
  mesh = _mesh.get()
  if mesh is None or len(array) % mesh.size:
    return array
  return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, BATCH))


def per_device(function: Callable, mesh: Mesh, cut: tuple[bool, ...]) -> Callable:
  """`function` run by every device on its own rows, without a word to the others.

  Args:
    cut: of each argument, whether it is rows that are divided over the devices, or the same for all. Results are rows.
  """
  specs = tuple(BATCH if rows else PartitionSpec() for rows in cut)
  return jax.shard_map(
    function, mesh=mesh, in_specs=specs, out_specs=BATCH, check_vma=False
  )  # gradients are a device's own
