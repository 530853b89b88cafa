"""Records what a run ran on: hardware, versions and commit, for reproduction."""

from __future__ import annotations

import functools
import importlib.metadata
import pathlib
import subprocess
from typing import Any

import jax
from jax.sharding import Mesh

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(mesh: Mesh) -> dict[str, Any]:
  """Returns {"device": number and kind, "processes": their number, "versions": of packages, "commit": of this
  code, "" if it is not a git checkout}.
  """
  return {
    "device": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
    "processes": jax.process_count(),
    "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    "commit": _commit(),
  }


@functools.cache
def _commit() -> str:
  root = pathlib.Path(__file__).parents[2]
  if not (root / ".git").exists():
    return ""
  try:
    found = subprocess.run(
      ["git", "-C", root, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
      capture_output=True,
      text=True,
      timeout=10,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return found.stdout.strip() if found.returncode == 0 else ""
