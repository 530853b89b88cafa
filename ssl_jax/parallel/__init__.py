"""Devices: the mesh, the shardings, and transfers of arrays between the host and the mesh.

This is the only package that names a device or builds a sharding.
"""

from ssl_jax.parallel.mesh import (
  abstract_mesh,
  check_batch,
  compile_step,
  constrain_rows,
  fill_devices,
  make_mesh,
  memory_limit,
  per_device,
  start,
  state_sharding,
  whoami,
)
from ssl_jax.parallel.placement import (
  along_data,
  fetch,
  local_rows,
  prefetch,
  replicate,
  replicated,
  spread,
  to_devices,
)
from ssl_jax.parallel.programs import bound_programs

__all__ = [
  "abstract_mesh",
  "along_data",
  "bound_programs",
  "check_batch",
  "compile_step",
  "constrain_rows",
  "fill_devices",
  "fetch",
  "local_rows",
  "make_mesh",
  "memory_limit",
  "per_device",
  "prefetch",
  "replicate",
  "replicated",
  "spread",
  "start",
  "state_sharding",
  "to_devices",
  "whoami",
]
