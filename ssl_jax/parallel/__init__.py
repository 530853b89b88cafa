"""Devices: the mesh, who holds what, host arrays to a mesh and back. The only package that names a device or builds a sharding."""

from ssl_jax.parallel.mesh import (
  BATCH,
  check_batch,
  compile_step,
  constrain_rows,
  make_mesh,
  per_device,
  prefetch,
  start,
  state_sharding,
  to_devices,
  whoami,
)
from ssl_jax.parallel.placement import along_data, fetch, join, replicate, replicated, spread

__all__ = [
  "BATCH",
  "along_data",
  "check_batch",
  "compile_step",
  "fetch",
  "join",
  "make_mesh",
  "per_device",
  "prefetch",
  "replicate",
  "replicated",
  "constrain_rows",
  "spread",
  "start",
  "state_sharding",
  "to_devices",
  "whoami",
]
