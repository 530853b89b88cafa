"""Images as sequences of patches, and which of them a masked autoencoder may see. Static shapes, no linen.

A patch's pixels lie in the order (row in the patch, column, channel), patches in row-major order. A mask is an
`order`, i32[B, L]: a permutation of each image's patches whose first `visible` entries are seen and whose rest is
removed. So masking is taking rows, nothing is ever scattered, and `jnp.argsort(order)` undoes it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp
import numpy as np

MASKINGS = ("random", "block", "grid")
BLOCKS = 64  # rectangles drawn for "block"; what none of them covers is removed last
BLOCK_PATCHES = 16  # least size of a rectangle, as in BEiT
BLOCK_ASPECT = 0.3  # least height / width of a rectangle; the greatest is its inverse


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
  """(rows, columns) of patches. Raises ValueError if `patch` does not divide both sides."""
  if height % patch or width % patch:
    up = math.ceil(max(height, width) / patch) * patch
    raise ValueError(
      f"images of {height} x {width} do not divide into patches of config.encoder.patch {patch}; use "
      f"config.augment.size {up}, or a patch that divides the sides"
    )
  return height // patch, width // patch


def patchify(images: jax.Array, patch: int) -> jax.Array:
  """[B, H, W, C] -> [B, L, patch * patch * C], L = (H / patch) (W / patch). Raises ValueError as `grid_of`."""
  grid_of(*images.shape[1:3], patch)
  return einops.rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: jax.Array, patch: int, grid: tuple[int, int]) -> jax.Array:
  """The inverse of `patchify`: [B, L, patch * patch * C] -> [B, H, W, C] for a `grid` of (rows, columns)."""
  return einops.rearrange(
    patches, "b (h w) (p q c) -> b (h p) (w q) c", h=grid[0], w=grid[1], p=patch, q=patch
  )


def take_patches(sequences: jax.Array, rows: jax.Array) -> jax.Array:
  """[B, L, D], i32[B, K] -> [B, K, D]: each sequence's own rows. Its gradient scatters: give it what has none."""
  return jnp.take_along_axis(sequences, rows[:, :, None], axis=1)


@functools.lru_cache(maxsize=None)
def sincos_positions(grid: tuple[int, int], width: int) -> np.ndarray:
  """f32[L, width]: fixed positions of a grid, half of the width for the column, half for the row.

  Each half is [sin(x w_k), cos(x w_k)] with w_k = 10000^(-k / (width / 4)). The released code builds its grid with
  the column first. Every squared norm is width / 2.
  Raises: ValueError if the width is no multiple of 4.
  Source: He et al. 2022, released code; Vaswani et al. 2017 for one dimension.
  """
  if width % 4:
    raise ValueError(
      f"sine-cosine positions need a width that is a multiple of 4, not {width}; use {width // 4 * 4 + 4}"
    )
  omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
  row, column = (axis.reshape(-1, 1) * omega for axis in np.mgrid[: grid[0], : grid[1]])
  return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1).astype(np.float32)


def visible_count(patches: int, mask_ratio: float) -> int:
  """How many of `patches` are seen: int(patches * (1 - mask_ratio)), at least one and not all.

  Raises: ValueError for a ratio outside (0, 1), or one that leaves nothing to see or nothing to predict.
  """
  if not 0 < mask_ratio < 1:
    raise ValueError(f"config.method.mask_ratio is {mask_ratio}; use a share in (0, 1), such as 0.75")
  count = int(patches * (1 - mask_ratio))
  if not 0 < count < patches:
    raise ValueError(
      f"config.method.mask_ratio {mask_ratio} leaves {count} of {patches} patches visible; use a ratio "
      f"from {1 / patches:.3g} to {1 - 1 / patches:.3g}, or smaller patches"
    )
  return count


def random_order(
  key: jax.Array, batch: int, grid: tuple[int, int], mask_ratio: float, masking: str = "random"
) -> jax.Array:
  """i32[B, L]: for each image its own order, the `visible_count(L, mask_ratio)` visible patches first.

  Args:
    masking: "random": every subset is equally likely. "block": the removed patches form rectangles of at least 16
      patches, as in BEiT. "grid": one patch of every s x s cell is seen, the same of each cell, drawn for each image.
  Raises: ValueError for a ratio out of range, an unknown masking, or a ratio or grid that "grid" cannot make.
  Source: He et al. 2022, section 3 and figure 6. The noise is drawn for each image from its own key, so an image's
    mask does not depend on how many others there are.
  """
  if masking not in MASKINGS:
    raise ValueError(f"config.method.masking is {masking!r}; known: {', '.join(MASKINGS)}")
  visible_count(grid[0] * grid[1], mask_ratio)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
  return jnp.argsort(jax.vmap(_noise(grid, mask_ratio, masking))(keys), axis=1)


def _noise(grid: tuple[int, int], mask_ratio: float, masking: str) -> Callable[[jax.Array], jax.Array]:
  """key -> f32[L]: patches with the smallest values are seen."""
  count = grid[0] * grid[1]
  if masking == "random":
    return lambda key: jax.random.uniform(key, (count,))
  if masking == "block":
    return functools.partial(_block_noise, grid=grid)
  side = round(1 / math.sqrt(1 - mask_ratio))
  if side < 2 or grid[0] % side or grid[1] % side or visible_count(count, mask_ratio) != count // side**2:
    raise ValueError(
      f"config.method.masking 'grid' sees one patch of every s x s, which mask_ratio {mask_ratio} on a "
      f"grid of {grid[0]} x {grid[1]} is not; use 0.75 (s = 2) and an even grid, or masking 'random'"
    )
  row, column = np.divmod(np.arange(count), grid[1])
  cell = jnp.asarray(row % side * side + column % side)
  return lambda key: (cell != jax.random.randint(key, (), 0, side**2)).astype(jnp.float32)


def _block_noise(key: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
  """Rectangles come one after another; the earlier one covers a patch, the sooner it is removed."""
  size_key, aspect_key, place_key, tie_key = jax.random.split(key, 4)
  rows, columns = grid
  most = max(BLOCK_PATCHES, rows * columns // 2)
  area = jax.random.uniform(size_key, (BLOCKS,), minval=min(BLOCK_PATCHES, most), maxval=most)
  aspect = jnp.exp(
    jax.random.uniform(aspect_key, (BLOCKS,), minval=math.log(BLOCK_ASPECT), maxval=-math.log(BLOCK_ASPECT))
  )
  height = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, rows)
  width = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, columns)
  place = jax.random.uniform(place_key, (2, BLOCKS))
  top, left = jnp.floor(place[0] * (rows - height + 1)), jnp.floor(place[1] * (columns - width + 1))
  row, column = (
    jnp.asarray(axis.reshape(-1, 1), jnp.float32) for axis in np.mgrid[:rows, :columns]
  )  # [L, 1]
  covered = (
    (row >= top[None])
    & (row < (top + height)[None])
    & (column >= left[None])
    & (column < (left + width)[None])
  )
  first = jnp.where(covered.any(1), jnp.argmax(covered, axis=1), BLOCKS)
  return -(first.astype(jnp.float32) + jax.random.uniform(tie_key, first.shape))
