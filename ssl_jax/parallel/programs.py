"""Bounds the number of compiled programs that a process keeps.

On the CPU a compiled program takes some of the 65,530 memory maps that Linux allows a process
(`vm.max_map_count`), and jit keeps thousands of programs: a process that evaluates network after network
would end with a segmentation fault.
"""

from __future__ import annotations

import gc
import pathlib

import jax

MOST_MAPS = 16_000  # above this number, compiled programs are freed


def memory_maps() -> int:
  """Returns the number of memory maps of this process; 0 where the system does not tell."""
  path = pathlib.Path("/proc/self/maps")
  return path.read_bytes().count(b"\n") if path.exists() else 0


def bound_programs(most: int = MOST_MAPS) -> bool:
  """Frees the compiled programs of all jit functions if the process has more than `most` memory maps.

  Programs that were compiled ahead of time and are still referenced stay. Returns: whether they were freed.
  """
  if memory_maps() <= most:
    return False
  jax.clear_caches()
  gc.collect()
  return True
