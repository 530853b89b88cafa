"""Blur corruptions of an image f32[H, W, 3] in [0, 1]."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.corrupt.linear import move, pick, smooth, truncate, zoom
from ssl_jax.corrupt.tables import PARAMETERS


def gaussian_blur(key, image, severity, *, table):
  """Computes scikit-image's Gaussian blur, truncated at 4 sigma, with repeated edge pixels. Exact."""
  return smooth(image, PARAMETERS["gaussian_blur"][table], severity)


def defocus_blur(key, image, severity, *, table):
  """Correlates with a smoothed disk, by Fourier transforms. Exact.

  The image is mirrored at its border without repeating the edge pixel.
  """
  kernels = [_disk(*row) for row in PARAMETERS["defocus_blur"][table]]
  reach = max(len(kernel) for kernel in kernels) // 2
  height, width = (side + 2 * reach for side in image.shape[:2])
  transfer = np.stack([_transfer(kernel, height, width) for kernel in kernels])
  padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
  spectrum = jnp.fft.rfft2(padded, axes=(0, 1)) * jnp.asarray(transfer)[severity - 1][..., None]
  found = jnp.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
  return found[reach : height - reach, reach : width - reach]


def _disk(radius: float, sigma: float) -> np.ndarray:
  """Returns the kernel: the indicator of a disk, smoothed by a Gaussian of 3 or 5 taps.

  It is f64[17, 17] for a radius of at most 8 and f64[2 r + 1, 2 r + 1] for a larger radius r. The smoothing
  mirrors at the border of the array, so the sum exceeds 1 where the disk touches that border (1.013 for a
  radius of 8), and the corruption then brightens the image slightly.
  """
  reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
  line = np.arange(-reach, reach + 1)
  disk = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).astype(np.float64)
  disk /= disk.sum()
  gauss = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
  gauss /= gauss.sum()
  padded = np.pad(disk, taps, mode="reflect")
  across = cast(np.ndarray, sum(g * padded[:, i : i + len(disk)] for i, g in enumerate(gauss)))
  return cast(np.ndarray, sum(g * across[i : i + len(disk)] for i, g in enumerate(gauss)))


def _transfer(kernel: np.ndarray, height: int, width: int) -> np.ndarray:
  """Returns the transfer function of a correlation with the centred kernel: c64[height, width // 2 + 1]."""
  whole = np.zeros((height, width))
  whole[: len(kernel), : len(kernel)] = kernel
  whole = np.roll(whole, (-(len(kernel) // 2),) * 2, (0, 1))
  return np.conj(np.fft.rfft2(whole)).astype(np.complex64)


def motion_blur(key, image, severity, *, table):
  """Blurs along a random direction within 45 degrees of the horizontal. Exact for a given direction."""
  rows = PARAMETERS["motion_blur"][table]
  radius, sigma = pick(rows, severity)
  angle = jax.random.uniform(key, minval=-45.0, maxval=45.0)
  return move(image, radius, sigma, angle, most=max(radius for radius, _ in rows))


def zoom_blur(key, image, severity, *, table):
  """Averages the image and its enlargements by up to 26 factors, the first of which is 1. Exact."""
  rows = PARAMETERS["zoom_blur"][table]
  most = max(count for count, _ in rows)
  factors = np.stack([zoom_factors(most, distance) for _, distance in rows])
  count = jnp.asarray([count for count, _ in rows], jnp.int32)[severity - 1]

  def add(total, i):
    enlarged = zoom(image, factors.ravel(), (severity - 1) * most + i)
    return total + jnp.where(i < count, 1.0, 0.0) * enlarged, None

  total, _ = lax.scan(add, image, jnp.arange(most))
  return total / (count + 1).astype(jnp.float32)


def zoom_factors(count: int, distance: float) -> np.ndarray:
  """f64[count]: 1, 1 + distance and so on, rounded as in numpy.arange(1, end, distance), which the reference
  uses.
  """
  return 1 + np.arange(count) * ((1 + distance) - 1)


def glass_blur(key, image, severity, *, table):
  """Smooths the image, replaces each pixel by a nearby one in several passes, and smooths it again.

  Random; exact for given draws. A pass visits the pixels in reverse reading order. The reference intends to
  swap two pixels, but it swaps numpy views and so copies the second pixel over the first. A pixel therefore
  takes the value that its partner has at that moment: the old value if the partner has not been visited yet,
  otherwise the partner's new value. These chains of references are resolved in parallel by pointer doubling.
  """
  rows = PARAMETERS["glass_blur"][table]
  sigmas = [row[0] for row in rows]
  _, reach, passes = pick(rows, severity)
  image = truncate(smooth(image, sigmas, severity))
  height, width, channels = image.shape
  flat = lax.fori_loop(
    0,
    passes.astype(jnp.int32),
    lambda i, flat: flat[_sources(jax.random.fold_in(key, i), height, width, reach.astype(jnp.int32))],
    image.reshape(-1, channels),
  )
  return smooth(flat.reshape(image.shape), sigmas, severity)


def _sources(key, height: int, width: int, reach) -> jax.Array:
  """Returns i32[H W]: the index of the old pixel whose value each pixel takes in one pass."""
  down, across = jax.random.randint(key, (2, height, width), -reach, reach)
  row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
  moved = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
  partner = jnp.where(moved, (row + down) * width + column + across, row * width + column).ravel()
  own, moved = jnp.arange(height * width), moved.ravel()
  earlier = moved & moved[partner] & (partner > own)  # visited before: its new value counts
  follow = jnp.where(earlier, partner, own)  # the next pixel with the same new value
  _, follow = lax.while_loop(
    lambda two: (two[0] != two[1]).any(), lambda two: (two[1], two[1][two[1]]), (own, follow)
  )
  return partner[follow]
