"""Records what a run ran on: hardware, versions and commit, for reproduction."""

from __future__ import annotations

import functools
import importlib.metadata
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from ssl_jax.run.commit import commit_of

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(mesh: Mesh) -> dict[str, Any]:
  """Returns {"device": number and kind, "processes": their number, "versions": of packages, "commit": of this
  code, see `commit_of`}.
  """
  return {
    "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
    "processes": jax.process_count(),
    "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    "commit": _commit(),
  }


@functools.cache
def _commit() -> str:
  return commit_of(pathlib.Path(__file__).parents[2])
