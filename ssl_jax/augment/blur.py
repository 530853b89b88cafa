"""Gaussian blur of planes, f32[3, M, N], as one banded matrix per axis.

A band f32[K, S] stands for the matrix [S, S] whose row s holds band[k, s] in column s + k - K // 2; what
falls outside is dropped. As in resample.py an accelerator multiplies densely and a CPU adds up shifted
planes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.augment.resample import PRECISION


def sample_blur(key: jax.Array, *, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> jax.Array:
  """f32[]: a sigma uniform between the two with probability p, otherwise 0."""
  unit = jax.random.uniform(key, (2,))
  return jnp.where(unit[0] < p, sigma[0] + unit[1] * (sigma[1] - sigma[0]), 0.0)


def gaussian_blur(planes: jax.Array, sigma, *, definition: str, max_sigma: float) -> jax.Array:
  """Blurs f32[3, W, H] with a standard deviation of `sigma` <= `max_sigma` pixels; `sigma` may be traced.

  "pt" is Pillow's three boxes, "tf" SimCLR's kernel of a tenth of the height. sigma = 0 changes nothing, and
  on CPU, where a batch is a loop over images, costs nothing.
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
  """TensorFlow SimCLR's blur: f32[2 radius + 1, size], a sampled Gaussian cut off at `radius` and normalised.

  Nothing makes up for taps outside the image, so a border darkens. sigma = 0 is the identity.
  """
  distance = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
  weight = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))
  return jnp.broadcast_to((weight / weight.sum())[:, None], (2 * radius + 1, size))


def box_band(sigma, size: int, *, max_sigma: float) -> jax.Array:
  """Pillow's GaussianBlur(radius=sigma): three passes of an extended box, the edge pixel repeated in each.

  Returns f32[6 r + 1, size], the three passes as one band, r being the radius of the box at `max_sigma`.
  Repeating the edge anew in each pass makes the first and last columns differ from the rest. sigma = 0 is the
  identity.
  Source: Gwosdek et al. 2011, "Theoretical foundations of Gaussian convolution by extended box filtering":
  a box of 2 l + 1 equal taps and two of weight alpha, l and alpha such that its variance is sigma^2 / 3.
  """
  radius = math.floor((math.sqrt(4 * max_sigma**2 + 1) - 1) / 2) + 1
  variance = jnp.square(jnp.asarray(sigma, jnp.float32)) / 3
  inner = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
  alpha = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - jnp.square(inner + 1)))
  distance = jnp.abs(jnp.arange(-radius, radius + 1, dtype=jnp.float32))
  box = jnp.where(distance <= inner, 1.0, jnp.where(distance == inner + 1, alpha, 0.0))
  box = jnp.einsum("skm,k->ms", _folded(size, radius), box / (2 * inner + 1 + 2 * alpha), precision=PRECISION)
  return _compose(box, _compose(box, box))


def _folded(size: int, radius: int) -> np.ndarray:
  """f32[size, K, K]: where tap k of row s really reads, as an offset m, once the edge pixel is repeated."""
  row, tap = np.mgrid[:size, : 2 * radius + 1]
  offset = np.clip(row + tap - radius, 0, size - 1) - row + radius
  return np.eye(2 * radius + 1, dtype=np.float32)[offset]


def _compose(outer: jax.Array, inner: jax.Array) -> jax.Array:
  """The band of the product of two banded matrices."""
  taps, size = outer.shape
  padded = jnp.pad(inner, ((0, 0), (taps // 2, taps // 2)))
  place = lambda k: jnp.pad(outer[None, k] * padded[:, k : k + size], ((k, taps - 1 - k), (0, 0)))
  return sum(place(k) for k in range(taps))


def _by_shifting(first: jax.Array, second: jax.Array, planes: jax.Array) -> jax.Array:
  halfway = lax.map(lambda plane: _shift_and_add(first, plane, axis=0), planes)
  return _shift_and_add(second, halfway.reshape(-1, planes.shape[2]), axis=1).reshape(planes.shape)


def _shift_and_add(band: jax.Array, plane: jax.Array, *, axis: int) -> jax.Array:
  taps, size = band.shape
  padded = jnp.pad(plane, [(taps // 2, taps // 2) if a == axis else (0, 0) for a in range(2)])
  padded = lax.optimization_barrier(padded)  # else each shift of it costs a comparison for every pixel
  shifted = lambda k: lax.slice_in_dim(padded, k, k + size, axis=axis)
  return sum(jnp.expand_dims(band[k], 1 - axis) * shifted(k) for k in range(taps))


def _by_matmul(first: jax.Array, second: jax.Array, planes: jax.Array) -> jax.Array:
  halfway = jnp.einsum("sm,cmn->csn", _widen(first), planes, precision=PRECISION)
  return jnp.einsum("tn,csn->cst", _widen(second), halfway, precision=PRECISION)


def _widen(band: jax.Array) -> jax.Array:
  """The square matrix [S, S] of a band."""
  taps, size = band.shape
  return sum(band[k, :, None] * np.eye(size, k=k - taps // 2, dtype=np.float32) for k in range(taps))
