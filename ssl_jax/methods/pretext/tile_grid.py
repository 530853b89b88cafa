"""Three by three tiles of an image, and the operations that prevent a network from finding their positions by
anything except their content.

Standardised tiles z are returned as 0.5 + z / 4: an encoder with normalize="centred" recovers z, and the
tiles can be shown as images.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.augment import colour, resample
from ssl_jax.core import Key

PLACES = (
  "upper left",
  "above",
  "upper right",
  "left",
  "centre",
  "right",
  "lower left",
  "below",
  "lower right",
)
OPPONENT = np.array([-1.0, 2.0, -1.0])  # the green-magenta axis, on which the dispersion of lenses shows most
PROJECTION = (np.eye(3) - np.outer(OPPONENT, OPPONENT) / (OPPONENT @ OPPONENT)).astype(np.float32)
COARSEST = 10 / 96  # smallest fraction of its side length to which a tile is downsampled


class Grid(NamedTuple):
  """Nine tiles of `tile` x `tile` pixels, `tile + gap` apart, each moved by 0 to `jitter` pixels per axis."""

  tile: int
  gap: int
  jitter: int

  @property
  def extent(self) -> int:
    return 3 * self.tile + 2 * self.gap + self.jitter

  def check(self) -> Grid:
    """Returns the grid itself. Raises ValueError for sizes that do not form a grid."""
    if self.tile < 1 or self.gap < 0 or self.jitter < 0:
      raise ValueError(
        f"config.method: tile {self.tile}, gap {self.gap} and jitter {self.jitter} do not form a grid; use a "
        "positive tile, and 0 or more for the others"
      )
    return self


def sample_corners(key: Key, count: int, grid: Grid, size: int) -> jax.Array:
  """i32[count, 9, 2]: the upper left corners (row, column) of the tiles in reading order, for `count` images
  of `size` x `size` pixels.

  If the image is larger than the grid, the position of the grid is uniformly random.
  Raises: ValueError if the grid does not fit.
  """
  if grid.extent > size:
    raise ValueError(
      f"three tiles of config.method.tile {grid.tile}, two gaps of {grid.gap} and jitter {grid.jitter} take "
      f"{grid.extent} pixels; use config.augment.size {grid.extent} or more (it is {size}), or smaller tiles,"
      " gaps and jitter"
    )
  origin_key, jitter_key = jax.random.split(key)
  origin = jax.random.randint(origin_key, (count, 1, 2), 0, size - grid.extent + 1)
  places = jnp.asarray(np.indices((3, 3)).reshape(2, 9).T * (grid.tile + grid.gap), jnp.int32)[None]
  return origin + places + jax.random.randint(jitter_key, (count, 9, 2), 0, grid.jitter + 1)


def cut_tiles(images: jax.Array, corners: jax.Array, side: int) -> jax.Array:
  """f32[B, N, side, side, C]: the squares of the images [B, H, W, C] at the corners i32[B, N, 2]."""
  one = lambda image, corner: lax.dynamic_slice(
    image, (corner[0], corner[1], jnp.int32(0)), (side, side, image.shape[-1])
  )
  return jax.vmap(jax.vmap(one, (None, 0)))(images, corners)


def random_grey(key: Key, images: jax.Array, p: float) -> jax.Array:
  """Converts each image of [B, H, W, 3] to grey with probability `p`, so that the colours of neighbouring
  pieces cannot be matched.
  """
  grey = colour.luma(jnp.moveaxis(images, -1, 0), "pt")[..., None]
  return jnp.where(jax.random.bernoulli(key, p, (len(images), 1, 1, 1)), grey, images)


def project(images: jax.Array) -> jax.Array:
  """Removes the green-magenta component of colours [..., 3] with the matrix B = I - a'a / aa'.

  Source: Doersch et al. 2015, section 3.1.
  """
  return jnp.einsum("...c,cd->...d", images, jnp.asarray(PROJECTION), precision=lax.Precision.HIGHEST)


def shift_channels(key: Key, images: jax.Array, most: int) -> jax.Array:
  """Shifts every channel of [B, H, W, 3] by 0 to `most` pixels per axis: [B, H - most, W - most, 3]."""
  if not most:
    return images
  height, width = (side - most for side in images.shape[1:3])
  one = lambda plane, start: lax.dynamic_slice(plane, (start[0], start[1]), (height, width))
  starts = jax.random.randint(key, (len(images), 3, 2), 0, most + 1)
  return jax.vmap(jax.vmap(one, (-1, 0), -1))(images, starts)


def drop_colour(key: Key, tiles: jax.Array) -> jax.Array:
  """Keeps one random channel of each tile [..., h, w, 3] and subtracts its mean; the other channels become
  uniform noise of at most half a grey level.

  Every tile draws its own channel. Relations between channels, such as chromatic aberration, are then not
  visible.
  Source: Doersch et al. 2015, released code.
  """
  which_key, noise_key = jax.random.split(key)
  kept = jax.random.randint(which_key, (*tiles.shape[:-3], 1, 1, 1), 0, 3)
  noise = jax.random.uniform(noise_key, tiles.shape, minval=-0.5, maxval=0.5) / 255
  here = jnp.arange(3).reshape((1,) * (tiles.ndim - 1) + (3,)) == kept
  return jnp.where(here, tiles - tiles.mean((-3, -2), keepdims=True), noise)


def random_coarse(key: Key, tiles: jax.Array, p: float) -> jax.Array:
  """Downsamples each tile of [B, N, s, s, 3] with probability `p` and upsamples it again, bilinearly.

  The side of the downsampled tile is at least 10/96 of s, and its number of pixels is uniformly distributed.
  This prevents a network from recognising tiles by their sharpness.
  Source: Doersch et al. 2015, released code.
  """
  side = tiles.shape[-2]
  least = max(1, round(COARSEST * side))
  bank = np.stack(
    [resample.matrix(s, side, "bilinear") @ resample.matrix(side, s, "bilinear") for s in range(least, side)]
    + [np.eye(side, dtype=np.float32)]
  )
  which_key, size_key = jax.random.split(key)
  area = jax.random.uniform(size_key, tiles.shape[:2], minval=float(least**2), maxval=float((side - 1) ** 2))
  reduced = jnp.floor(jnp.sqrt(area)).astype(jnp.int32) - least
  chosen = jnp.where(jax.random.bernoulli(which_key, p, tiles.shape[:2]), reduced, len(bank) - 1)
  return apply_both(jnp.asarray(bank)[chosen], tiles)


def apply_both(matrices: jax.Array, images: jax.Array) -> jax.Array:
  """Applies matrices [..., t, s] to rows and columns of images [..., s, s, 3]: [..., t, t, 3]."""
  halfway = jnp.einsum("...ts,...swc->...twc", matrices, images, precision=resample.PRECISION)
  return jnp.einsum("...uw,...twc->...tuc", matrices, halfway, precision=resample.PRECISION)


def standardize(tiles: jax.Array) -> jax.Array:
  """Standardises each channel of each tile [..., h, w, 3] to mean 0 and deviation 1 (a constant channel
  becomes 0), and returns the result z as 0.5 + z / 4.
  """
  centred = tiles - tiles.mean((-3, -2), keepdims=True)
  deviation = jnp.sqrt(jnp.square(centred).mean((-3, -2), keepdims=True))
  return 0.5 + 0.25 * centred / jnp.where(deviation < 1e-5, 1.0, deviation)


def equalize(tiles: jax.Array) -> jax.Array:
  """Scales each tile [..., h, w, 3] to channel means of 0 and a root mean square of 1 over all channels, and
  returns the result z as 0.5 + z / 4.

  The released code then multiplies by 50, which makes no difference for a network with BatchNorm.
  """
  centred = tiles - tiles.mean((-3, -2), keepdims=True)
  power = jnp.sqrt(jnp.square(centred).mean((-3, -2, -1), keepdims=True))
  return 0.5 + 0.25 * centred / jnp.where(power < 1e-5, 1.0, power)
