"""Operations that corruptions share: selection by severity, Gaussian smoothing, zoom and motion blur."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.augment import resample


def pick(rows, severity: jax.Array) -> jax.Array:
  """Returns row `severity` - 1 of a table with five rows, as f32; the severity may be traced."""
  return jnp.asarray(np.asarray(rows, np.float32))[severity - 1]


def truncate(image: jax.Array) -> jax.Array:
  """Clips to [0, 1] and truncates to whole grey levels, as a conversion to uint8 does."""
  return jnp.floor(jnp.clip(image, 0, 1) * 255 + 1e-3) / 255


def both_sides(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
  """Multiplies the sides of an image [H, W, C] by the matrices [T, H] and [S, W]; returns [T, S, C]."""
  halfway = jnp.einsum("th,hwc->twc", rows, image, precision=resample.PRECISION)
  return jnp.einsum("sw,twc->tsc", columns, halfway, precision=resample.PRECISION)


def smoothing(size: int, sigma: float, *, truncate: float = 4.0, border: str = "nearest") -> np.ndarray:
  """Returns the matrix f32[size, size] of scipy.ndimage.gaussian_filter along one side.

  Args:
    sigma: standard deviation in pixels.
    truncate: radius of the kernel in units of `sigma`.
    border: "nearest" repeats the edge pixel; "reflect" mirrors the image with the edge pixel twice, several
      times if the kernel reaches that far.
  """
  radius = int(truncate * sigma + 0.5)
  if not radius:
    return np.eye(size, dtype=np.float32)
  taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
  place = np.arange(size)[:, None] + np.arange(-radius, radius + 1)[None]
  if border == "nearest":
    place = np.clip(place, 0, size - 1)
  else:
    place = place % (2 * size)
    place = np.minimum(place, 2 * size - 1 - place)
  found = np.zeros((size, size))
  np.add.at(found, (np.broadcast_to(np.arange(size)[:, None], place.shape), place), taps / taps.sum())
  return found.astype(np.float32)


def smooth(image: jax.Array, sigmas, severity: jax.Array, **options) -> jax.Array:
  """Smooths the image [H, W, C] with the Gaussian sigma of the given severity."""
  rows, columns = (
    jnp.asarray(np.stack([smoothing(side, sigma, **options) for sigma in sigmas]))[severity - 1]
    for side in image.shape[:2]
  )
  return both_sides(rows, columns, image)


def zoom_taps(size: int, factors: np.ndarray, which: jax.Array) -> resample.Taps:
  """Returns the taps of scipy's zoom (order 1) of the centre of one side, cropped to `size` pixels.

  The central ceil(size / factor) pixels are enlarged such that the first and last pixels of input and output
  coincide. The numbers of pixels are computed in float64 as the reference does: 26 pixels enlarged by its
  factor 1.2500000000000002 are 33, but 32 in float32.

  Args:
    factors: f64[N], at least 1.
    which: i32[], the factor that is used.
  """
  counts = np.ceil(size / factors)
  inside, zoomed = (jnp.asarray(n, jnp.float32)[which] for n in (counts, np.round(counts * factors)))
  start = jnp.floor((size - inside) / 2)
  place = jnp.arange(size, dtype=jnp.float32) + jnp.floor((zoomed - size) / 2)
  place = place * (inside - 1) / jnp.maximum(zoomed - 1, 1)
  low = jnp.clip(jnp.floor(place), 0, size - 1)
  fraction = place - low
  index = jnp.stack([low, low + 1], 1) + start
  return resample.Taps(jnp.clip(index, 0, size - 1).astype(jnp.int32), jnp.stack([1 - fraction, fraction], 1))


def zoom(image: jax.Array, factors: np.ndarray, which: jax.Array) -> jax.Array:
  """Enlarges the centre of an image [H, W, C] by `factors[which]`; the result has the same size."""
  rows, columns = (zoom_taps(side, factors, which) for side in image.shape[:2])
  return resample.resample(rows, columns, image.transpose(2, 0, 1)).transpose(2, 1, 0)


def move(image: jax.Array, radius: jax.Array, sigma: jax.Array, angle: jax.Array, *, most: int) -> jax.Array:
  """Computes ImageMagick's motion blur of an image [H, W, C], as the package imagecorruptions does.

  It sums 2 radius + 1 copies of the image, each shifted by a whole number of pixels further along the
  direction of motion, with the weights of one half of a Gaussian. Edge pixels are repeated.

  Args:
    radius, sigma: f32[], in pixels.
    angle: f32[], in degrees.
    most: upper bound of `radius`, which fixes the number of copies that are compiled.
  """
  steps = jnp.arange(2 * most + 1, dtype=jnp.float32)
  weight = jnp.where(steps <= 2 * radius, jnp.exp(-(steps**2) / (2 * sigma**2)), 0.0)
  weight = weight / weight.sum()
  turn = angle * (math.pi / 180)
  down = -jnp.ceil(steps * jnp.sin(turn) - 0.5).astype(jnp.int32)
  across = -jnp.ceil(steps * jnp.cos(turn) - 0.5).astype(jnp.int32)
  reach = 2 * most
  padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
  total = jnp.zeros_like(image)
  for i in range(2 * most + 1):
    total = total + weight[i] * lax.dynamic_slice(
      padded, (reach - down[i], reach - across[i], jnp.int32(0)), image.shape
    )
  return total
