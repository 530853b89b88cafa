"""Gaussian blur of planes, f32[3, M, N], as one banded matrix per axis.

A band f32[K, S] represents the matrix [S, S] whose row s holds band[k, s] in column s + k - K // 2; entries
whose column lies outside the matrix are dropped. Accelerators multiply by the dense matrix and a CPU sums
shifted planes, as in resample.py.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.augment.resample import PRECISION


def sample_blur(key: jax.Array, *, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> jax.Array:
  """Samples a standard deviation, f32[]: with probability `p` uniform in the range `sigma`, otherwise 0."""
  unit = jax.random.uniform(key, (2,))
  return jnp.where(unit[0] < p, sigma[0] + unit[1] * (sigma[1] - sigma[0]), 0.0)


def gaussian_blur(planes: jax.Array, sigma, *, definition: str, max_sigma: float) -> jax.Array:
  """Blurs planes f32[3, W, H] with a Gaussian whose standard deviation is `sigma` pixels.

  With sigma = 0 the planes are unchanged; on CPU, where a batch is a loop over images, that case costs
  nothing.

  Args:
    sigma: f32[], 0 <= sigma <= `max_sigma`; may be traced.
    definition: "pt" for Pillow's blur (`box_band`), or "tf" for the blur of TensorFlow's SimCLR
      (`gaussian_band`), whose kernel spans a tenth of the height.
    max_sigma: fixes the number of taps that "pt" compiles.
  """
  _, width, height = planes.shape

  def bands(sigma):
    if definition == "pt":
      band = lambda size: box_band(sigma, size, max_sigma=max_sigma)
    else:
      band = lambda size: gaussian_band(sigma, size, radius=height // 10 // 2)
    return band(width), band(height)

  return lax.platform_dependent(
    planes,
    jnp.asarray(sigma, jnp.float32),
    default=lambda x, s: _by_matmul(*bands(s), x),
    cpu=lambda x, s: lax.cond(s > 0, lambda: _by_shifting(*bands(s), x), lambda: x),
  )


def gaussian_band(sigma, size: int, *, radius: int) -> jax.Array:
  """Returns the band f32[2 radius + 1, size] of the blur in TensorFlow's SimCLR.

  It is a sampled Gaussian, truncated at `radius` and normalised. Taps outside the image count as zero
  without renormalisation, so the borders darken. sigma = 0 gives the identity.
  """
  distance = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
  weight = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))
  return jnp.broadcast_to((weight / weight.sum())[:, None], (2 * radius + 1, size))


def box_band(sigma, size: int, *, max_sigma: float) -> jax.Array:
  """Returns the band of Pillow's GaussianBlur(radius=sigma): three passes of an extended box filter.

  The result is f32[6 r + 1, size], the three passes combined into one band, where r is the radius of the box
  at `max_sigma`. Each pass repeats the edge pixel again, which makes the first and last columns of the band
  differ from the others. sigma = 0 gives the identity.
  Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering":
  a box of 2 l + 1 equal taps and two outer taps of weight alpha, with l and alpha chosen such that its
  variance is sigma^2 / 3.
  """
  radius = math.floor((math.sqrt(4 * max_sigma**2 + 1) - 1) / 2) + 1
  variance = jnp.square(jnp.asarray(sigma, jnp.float32)) / 3
  inner = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
  alpha = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - jnp.square(inner + 1)))
  distance = jnp.abs(jnp.arange(-radius, radius + 1, dtype=jnp.float32))
  box = jnp.where(distance <= inner, 1.0, jnp.where(distance == inner + 1, alpha, 0.0))
  box = jnp.einsum(
    "skm,k->ms", _edge_taps(size, radius), box / (2 * inner + 1 + 2 * alpha), precision=PRECISION
  )
  return _multiply_bands(box, _multiply_bands(box, box))


def _edge_taps(size: int, radius: int) -> np.ndarray:
  """Returns the one-hot f32[size, K, K] that moves taps outside the image onto the repeated edge pixel.

  Entry [s, k, m] is 1 if tap k of row s reads the pixel that tap m of that row addresses.
  """
  row, tap = np.mgrid[:size, : 2 * radius + 1]
  offset = np.clip(row + tap - radius, 0, size - 1) - row + radius
  return np.eye(2 * radius + 1, dtype=np.float32)[offset]


def _multiply_bands(outer: jax.Array, inner: jax.Array) -> jax.Array:
  """Returns the band of the product of two banded matrices, outer @ inner."""
  taps, size = outer.shape
  padded = jnp.pad(inner, ((0, 0), (taps // 2, taps // 2)))
  place = lambda k: jnp.pad(outer[None, k] * padded[:, k : k + size], ((k, taps - 1 - k), (0, 0)))
  return sum(place(k) for k in range(taps))  # pyright: ignore[reportReturnType]  # at least one term


def _by_shifting(first: jax.Array, second: jax.Array, planes: jax.Array) -> jax.Array:
  halfway = lax.map(lambda plane: _shift_and_add(first, plane, axis=0), planes)
  return _shift_and_add(second, halfway.reshape(-1, planes.shape[2]), axis=1).reshape(planes.shape)


def _shift_and_add(band: jax.Array, plane: jax.Array, *, axis: int) -> jax.Array:
  taps, size = band.shape
  padded = jnp.pad(plane, [(taps // 2, taps // 2) if a == axis else (0, 0) for a in range(2)])
  # Without the barrier XLA repeats the padding's comparison for every pixel of every shift.
  padded = lax.optimization_barrier(padded)
  shifted = lambda k: lax.slice_in_dim(padded, k, k + size, axis=axis)
  terms = (jnp.expand_dims(band[k], 1 - axis) * shifted(k) for k in range(taps))
  return sum(terms)  # pyright: ignore[reportReturnType]  # at least one term


def _by_matmul(first: jax.Array, second: jax.Array, planes: jax.Array) -> jax.Array:
  halfway = jnp.einsum("sm,cmn->csn", _dense(first), planes, precision=PRECISION)
  return jnp.einsum("tn,csn->cst", _dense(second), halfway, precision=PRECISION)


def _dense(band: jax.Array) -> jax.Array:
  """Returns the square matrix [S, S] that a band represents."""
  taps, size = band.shape
  terms = (band[k, :, None] * np.eye(size, k=k - taps // 2, dtype=np.float32) for k in range(taps))
  return sum(terms)  # pyright: ignore[reportReturnType]  # at least one term
