"""Records what a run ran on: hardware, versions and commit, for reproduction."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import jax
from jax.sharding import Mesh

from ssl_jax.run.commit import running_commit

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(mesh: Mesh) -> dict[str, Any]:
  """Returns {"device": number and kind, and the number of slices if there are several, "processes": their
  number, "versions": of packages, "commit": of this code, see `commit.commit_of`}.
  """
  slices = f" in {mesh.shape['slice']} slices" if "slice" in mesh.shape else ""
  return {
    "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}{slices}",
    "processes": jax.process_count(),
    "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    "commit": running_commit(),
  }
