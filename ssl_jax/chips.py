"""Accelerators that a plan can be made for: public figures of one chip."""

from __future__ import annotations

from typing import NamedTuple

GIB, TERA = 2**30, 10**12


class Chip(NamedTuple):
  """Peak figures of one chip."""

  flops: float  # bf16 with float32 sums, dense, a second
  memory: int  # bytes
  bandwidth: float  # bytes a second, to that memory
  source: str


CHIPS = {
    "v4": Chip(275 * TERA, 32 * GIB, 1.228 * TERA, "Google Cloud TPU documentation, TPU v4"),
    "v5e": Chip(197 * TERA, 16 * GIB, 0.819 * TERA, "Google Cloud TPU documentation, TPU v5e"),
    "v5p": Chip(459 * TERA, 95 * GIB, 2.765 * TERA, "Google Cloud TPU documentation, TPU v5p"),
    "v6e": Chip(918 * TERA, 32 * GIB, 1.640 * TERA, "Google Cloud TPU documentation, TPU v6e"),
}
SHAPES = {  # examples for messages; other shapes that the compiler knows are taken too
    "v4": ("2x2x1", "2x2x2", "2x2x4", "4x4x4"), "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "4x4x4", "4x4x8"), "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")}


def known() -> list[str]:
  """Topologies to name in a message."""
  return [f"{chip}:{shape}" for chip, shapes in SHAPES.items() for shape in shapes]
