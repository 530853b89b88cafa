"""What several corruptions are made of: a choice by severity, smoothing as a matrix for each side, zooming, motion."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.augment import resample


def pick(rows, severity: jax.Array) -> jax.Array:
  """Row number `severity` - 1 of a table with five, which may be traced."""
  return jnp.asarray(np.asarray(rows, np.float32))[severity - 1]


def truncate(image: jax.Array) -> jax.Array:
  """Clipped to [0, 1] and cut down to whole grey levels, as files of uint8 hold it."""
  return jnp.floor(jnp.clip(image, 0, 1) * 255 + 1e-3) / 255


def both_sides(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
  """Matrices [T, H] and [S, W] along the sides of an image [H, W, C]: [T, S, C]."""
  halfway = jnp.einsum("th,hwc->twc", rows, image, precision=resample.PRECISION)
  return jnp.einsum("sw,twc->tsc", columns, halfway, precision=resample.PRECISION)


def smoothing(size: int, sigma: float, *, truncate: float = 4.0, border: str = "nearest") -> np.ndarray:
  """f32[size, size]: a Gaussian along one side as scipy.ndimage.gaussian_filter computes it.

  Args:
    border: "nearest" repeats the edge pixel, "reflect" mirrors with the edge pixel twice, as often as it takes.
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
  """The image [H, W, C] smoothed by the sigma of its severity."""
  rows, columns = (
    jnp.asarray(np.stack([smoothing(side, sigma, **options) for sigma in sigmas]))[severity - 1]
    for side in image.shape[:2]
  )
  return both_sides(rows, columns, image)


def zoom_taps(size: int, factor: jax.Array) -> resample.Taps:
  """scipy's zoom (order 1) of the middle of a side, cut to `size`: the middle ceil(size / factor) pixels, corners on corners."""
  inside = jnp.ceil(size / factor - 1e-4)
  start = jnp.floor((size - inside) / 2)
  made = jnp.round(inside * factor)
  place = jnp.arange(size, dtype=jnp.float32) + jnp.floor((made - size) / 2)
  place = place * (inside - 1) / jnp.maximum(made - 1, 1)
  low = jnp.clip(jnp.floor(place), 0, size - 1)
  share = place - low
  index = jnp.stack([low, low + 1], 1) + start
  return resample.Taps(jnp.clip(index, 0, size - 1).astype(jnp.int32), jnp.stack([1 - share, share], 1))


def zoom(image: jax.Array, factor: jax.Array) -> jax.Array:
  """The middle of [H, W, C], enlarged by `factor` to the same size."""
  rows, columns = (zoom_taps(side, factor) for side in image.shape[:2])
  return resample.resample(rows, columns, image.transpose(2, 0, 1)).transpose(2, 1, 0)


def move(image: jax.Array, radius: jax.Array, sigma: jax.Array, angle: jax.Array, *, most: int) -> jax.Array:
  """Motion blur of [H, W, C]: 2 radius + 1 copies, each a whole number of pixels further along, weighted by half a Gaussian.

  Edge pixels are repeated. ImageMagick's motion blur as imagecorruptions computes it.
  Args:
    angle: degrees. most: the largest radius that may come.
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
