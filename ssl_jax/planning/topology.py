"""Meshes of chips that are not present, to compile programs for."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator

from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.config.checked import nearest
from ssl_jax.planning.chips import CHIPS, Chip, known, target_of

NEEDS = {
  "tpu": (
    ("libtpu",),
    "planning for a TPU needs its compiler, which is not installed; pip install 'ssl_jax[tpu]'",
  ),
  "gpu": (
    ("jax_cuda12_plugin", "jax_cuda13_plugin"),
    "planning for a GPU needs its compiler, which is not installed; pip install 'ssl_jax[cuda12]'",
  ),
}
# A chip with two cores is one device, as in jax on such a machine; without this libtpu lists its cores.
CHIP_CONFIG = {"v4": {"chip_config_name": "megacore"}}


def open_topology(topology: str) -> tuple[Chip, Mesh]:
  """(The figures of the chip, a mesh over devices that need not be present).

  Args:
    topology: CHIP:SHAPE, such as "v5e:8x8", or "v5e:8x8x2slices" for two such slices. For GPUs "h100:8", or
      "h100:4x8" for 4 machines with 8 GPUs each.
  Raises: ValueError for an unknown topology, with the known ones, or if the compiler is not installed, with
    the command that installs it.
  """
  name, _, shape = topology.partition(":")
  found = re.fullmatch(r"(\d+(?:x\d+)*?)(?:x([1-9]\d*)slices)?", shape)
  if name not in CHIPS or not found or (CHIPS[name].platform == "gpu" and (found[2] or shape.count("x") > 1)):
    raise ValueError(f"--topology={topology}: no such topology{nearest(topology, known())}")
  chip = CHIPS[name]
  packages, message = NEEDS[chip.platform]
  if not any(map(importlib.util.find_spec, packages)):
    raise ValueError(message)
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Without this, libtpu allows one process at a time, even on a machine without chips.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  from jax.experimental import topologies

  try:
    with quiet():
      if chip.platform == "gpu":
        machines, gpus = (["1", *shape.split("x")])[-2:]
        described = topologies.get_topology_desc(
          "gpus", "cuda", target_config=target_of(name), topology=f"1x{machines}x{gpus}"
        )
      else:
        slices = {"num_slices": int(found[2])} if found[2] else {}
        described = topologies.get_topology_desc(
          platform="tpu", topology_name=f"{name}:{found[1]}", **slices, **CHIP_CONFIG.get(name, {})
        )
      mesh = parallel.make_mesh(described.devices)
  except Exception as error:  # jax raises RuntimeErrors with various messages
    raise ValueError(
      f"--topology={topology}: the compiler does not know this topology ({str(error).splitlines()[0]}); "
      "known: " + ", ".join(known())
    ) from error
  return chip, mesh


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Discards stderr, where compilers write warnings on a machine without such chips."""
  saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(null, 2)
    yield
  finally:
    os.dup2(saved, 2)
    os.close(saved)
    os.close(null)
