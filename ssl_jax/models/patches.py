"""Images as sequences of patches, and masks for masked autoencoders. All shapes are static; no linen modules.

The pixels of a patch are in the order (row in the patch, column, channel); the patches of an image are in
row-major order. A mask is an `order`, i32[B, L]: for each image a permutation of its patches. Its first
`visible` entries are the visible patches, the others are removed. Masking is then a gather of rows without
any scatter, and `jnp.argsort(order)` is the inverse permutation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.models.resize import linear_weights

MASKINGS = ("random", "block", "grid")
BLOCKS = 64  # number of rectangles drawn for "block"; patches outside all of them are removed last
BLOCK_PATCHES = 16  # smallest area of a rectangle in patches, as in BEiT
BLOCK_ASPECT = 0.3  # smallest height / width of a rectangle; the largest is its inverse


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
  """(rows, columns) of patches. Raises: ValueError if `patch` does not divide both sides."""
  if height % patch or width % patch:
    up = math.ceil(max(height, width) / patch) * patch
    raise ValueError(
      f"images of {height} x {width} do not divide into patches of config.encoder.patch {patch}; use "
      f"config.augment.size {up}, or a patch that divides the sides"
    )
  return height // patch, width // patch


def patchify(images: jax.Array, patch: int) -> jax.Array:
  """[B, H, W, C] -> [B, L, patch * patch * C], L = (H / patch) (W / patch). Raises: as `grid_of`."""
  grid_of(*images.shape[1:3], patch=patch)
  return einops.rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: jax.Array, patch: int, grid: tuple[int, int]) -> jax.Array:
  """The inverse of `patchify`: [B, L, patch * patch * C] -> [B, H, W, C] for a `grid` of (rows, columns)."""
  return einops.rearrange(
    patches, "b (h w) (p q c) -> b (h p) (w q) c", h=grid[0], w=grid[1], p=patch, q=patch
  )


def take_patches(sequences: jax.Array, rows: jax.Array) -> jax.Array:
  """Takes rows[b] of each sequence b: [B, L, D], i32[B, K] -> [B, K, D].

  The gradient is a scatter, which is slow; use it for inputs that need no gradient.
  """
  return jnp.take_along_axis(sequences, rows[:, :, None], axis=1)


@functools.lru_cache(maxsize=None)
def sincos_positions(grid: tuple[int, int], width: int) -> np.ndarray:
  """Fixed position embeddings f32[L, width] of a grid of (rows, columns), in row-major order.

  The first half of the width encodes the column and the second half the row, in the order of the released
  code. Each half is [sin(x w_k), cos(x w_k)] with w_k = 10000^(-k / (width / 4)). The squared norm of each
  row is width / 2.

  Raises: ValueError if the width is not a multiple of 4.
  Source: He et al. 2022, released code; Vaswani et al. 2017 for one dimension.
  """
  if width % 4:
    raise ValueError(
      f"sine-cosine positions need a width that is a multiple of 4, not {width}; use {width // 4 * 4 + 4}"
    )
  omega = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
  row, column = (axis.reshape(-1, 1) * omega for axis in np.mgrid[: grid[0], : grid[1]])
  return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1).astype(np.float32)


def resize_positions(
  table: jax.Array, made: tuple[int, int], grid: tuple[int, int], *, antialias: bool
) -> jax.Array:
  """Interpolates position embeddings, f32[made rows * columns, D], to another grid: f32[rows * columns, D].

  Args:
    antialias: False: PyTorch's bicubic interpolation (Keys' cubic with a = -3/4, the border repeated) as in
      MAE, which takes four neighbours at any scale. True: a = -1/2, with the kernel stretched when the grid
      shrinks and the weights renormalised at the border, as PyTorch with `antialias=True` and timm.
  Source: He et al. 2022, released code (`interpolate_pos_embed`).
  """
  maps = table.reshape(*made, -1)
  if antialias:
    return jax.image.resize(maps, (*grid, maps.shape[-1]), "cubic").reshape(-1, maps.shape[-1])
  rows, columns = (jnp.asarray(_cubic_weights(*sizes), table.dtype) for sizes in zip(made, grid))
  return jnp.einsum("ar,bc,rcd->abd", rows, columns, maps, precision="highest").reshape(-1, maps.shape[-1])


def relative_offsets(table: jax.Array, size: int) -> jax.Array:
  """A table over the offsets between patches of one axis, f32[..., 2m - 1] -> f32[..., size, size].

  Entry [query, key] is that of the offset query - key; the table begins with the offset 1 - m. For another
  size than m the table is interpolated linearly.
  """
  made = table.shape[-1]
  if made != 2 * size - 1:
    weights = jnp.asarray(linear_weights(made, 2 * size - 1, False), table.dtype)
    table = jnp.einsum("...m,om->...o", table, weights, precision="highest")
  offset = np.subtract.outer(np.arange(size), np.arange(size)) + size - 1
  chosen = jnp.asarray(np.eye(2 * size - 1, dtype=np.float32)[offset], table.dtype)
  return jnp.einsum("...o,qko->...qk", table, chosen, precision="highest")


def relative_bias(rows: jax.Array, columns: jax.Array) -> jax.Array:
  """The sum of the biases of both axes for every pair of tokens, f32[heads, 1 + L, 1 + L]; L = R C.

  Pairs with the class token, which comes first, have the bias zero.

  Args:
    rows, columns: f32[heads, R, R] and f32[heads, C, C], see `relative_offsets`.
  """
  pairs = rows[:, :, None, :, None] + columns[:, None, :, None, :]
  length = rows.shape[1] * columns.shape[1]
  return jnp.pad(pairs.reshape(-1, length, length), ((0, 0), (1, 0), (1, 0)))


def _cubic_weights(before: int, after: int) -> np.ndarray:
  """[after, before]: the weights of PyTorch's bicubic interpolation without antialiasing, for one axis."""
  place = (np.arange(after) + 0.5) * before / after - 0.5  # pixel centres lie at i + 1/2
  weights = np.zeros((after, before))
  for tap in range(-1, 3):
    index = np.floor(place).astype(int) + tap
    x, a = np.abs(place - index), -0.75
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
    np.add.at(weights, (np.arange(after), index.clip(0, before - 1)), np.where(x <= 1, near, far))
  return weights


def visible_count(patches: int, mask_ratio: float) -> int:
  """The number of visible patches: int(patches * (1 - mask_ratio)), at least one and not all.

  Raises: ValueError for a ratio outside (0, 1), or a ratio that leaves no patch visible or removes none.
  """
  if not 0 < mask_ratio < 1:
    raise ValueError(f"config.method.mask_ratio is {mask_ratio}; use a fraction in (0, 1), such as 0.75")
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
  """A random mask for each image: i32[B, L], the `visible_count(L, mask_ratio)` visible patches first.

  Each image draws from its own key, so its mask does not depend on the size of the batch.

  Args:
    grid: (rows, columns) of patches; L = rows * columns.
    mask_ratio: fraction of patches to remove, in (0, 1).
    masking: "random": every subset is equally likely. "block": the removed patches form rectangles of at
      least 16 patches, as in BEiT. "grid": one patch of each s x s cell is visible; its place is drawn for
      each image and is the same in all cells of the image.
  Raises: ValueError for a ratio out of range, an unknown masking, or a ratio or grid that "grid" cannot have.
  Source: He et al. 2022, section 3 and figure 6.
  """
  if masking not in MASKINGS:
    raise ValueError(f"config.method.masking is {masking!r}; known: {', '.join(MASKINGS)}")
  visible_count(grid[0] * grid[1], mask_ratio)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
  return jnp.argsort(jax.vmap(_noise(grid, mask_ratio, masking))(keys), axis=1)


def _noise(grid: tuple[int, int], mask_ratio: float, masking: str) -> Callable[[jax.Array], jax.Array]:
  """A function key -> f32[L]. The patches with the smallest values are visible."""
  count = grid[0] * grid[1]
  if masking == "random":
    return lambda key: jax.random.uniform(key, (count,))
  if masking == "block":
    return functools.partial(_block_noise, grid=grid)
  side = round(1 / math.sqrt(1 - mask_ratio))
  if side < 2 or grid[0] % side or grid[1] % side or visible_count(count, mask_ratio) != count // side**2:
    raise ValueError(
      f"config.method.masking 'grid' keeps one patch of every s x s visible, which mask_ratio {mask_ratio} "
      f"on a grid of {grid[0]} x {grid[1]} does not allow; use 0.75 (s = 2) and an even grid, or "
      "masking 'random'"
    )
  row, column = np.divmod(np.arange(count), grid[1])
  cell = jnp.asarray(row % side * side + column % side)
  return lambda key: (cell != jax.random.randint(key, (), 0, side**2)).astype(jnp.float32)


def _block_noise(key: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
  """f32[L]: a patch is removed the sooner, the earlier the first rectangle that covers it was drawn."""
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
