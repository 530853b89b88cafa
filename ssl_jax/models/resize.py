"""Feature maps resized by one static matrix per axis: no gather, and no scatter in the backward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def upsample(maps: jax.Array, size: tuple[int, int], align_corners: bool) -> jax.Array:
  """Bilinear interpolation to `size`, as PyTorch's `interpolate(mode="bilinear")`: two neighbours per axis.

  Args:
    maps: f32 or bf16 [B, h, w, C].
    size: (rows, columns) of the result; they may also be smaller than those of `maps`.
    align_corners: True: the centres of the corner pixels keep their place. False: the corners of the image
      do, and the border is repeated.
  Returns: [B, *size, C], of the dtype of `maps`.
  """
  if size == maps.shape[1:3]:
    return maps
  weights = (linear_weights(before, after, align_corners) for before, after in zip(maps.shape[1:3], size))
  rows, columns = (jnp.asarray(weight, maps.dtype) for weight in weights)
  halfway = jnp.einsum("ih,bhwc->biwc", rows, maps, precision=jax.lax.Precision.HIGHEST)
  return jnp.einsum("jw,biwc->bijc", columns, halfway, precision=jax.lax.Precision.HIGHEST)


def linear_weights(before: int, after: int, align_corners: bool) -> np.ndarray:
  """f32[after, before]: the weights of linear interpolation without antialiasing along one axis."""
  if align_corners:
    place = np.arange(after) * (before - 1) / max(after - 1, 1)
  else:
    place = ((np.arange(after) + 0.5) * before / after - 0.5).clip(0, before - 1)
  return np.maximum(1 - np.abs(place[:, None] - np.arange(before)), 0).astype(np.float32)


def pool(maps: jax.Array, grid: int) -> jax.Array:
  """Averages over `grid` x `grid` cells. Cell i spans floor(i h / g) to ceil((i + 1) h / g), as in PyTorch.

  Args:
    maps: f32[B, h, w, c].
  Returns: f32[B, grid, grid, c].
  """
  down, across = (_cells(side, grid) for side in maps.shape[1:3])
  return jnp.einsum("bhwc,ih,jw->bijc", maps, down, across, precision=jax.lax.Precision.HIGHEST)


def _cells(side: int, grid: int) -> np.ndarray:
  cells = np.zeros((grid, side), np.float32)
  for i in range(grid):
    inside = slice(i * side // grid, -(-(i + 1) * side // grid))
    cells[i, inside] = 1 / (inside.stop - inside.start)
  return cells
