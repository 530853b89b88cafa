"""Conversion between CIE Lab and sRGB, on the device. The lightness L is in [0, 100]; a and b are 0 for grey.

The white point is D65, and the matrices are those of scikit-image. Over all 8-bit colours a is in
[-86.2, 98.3] and b in [-107.9, 94.5].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TO_XYZ = np.array(
  [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = (_TO_XYZ / _WHITE[:, None]).astype(np.float32)  # relative to the white point
_FROM_XYZ = np.linalg.inv(_TO_XYZ.astype(np.float64)).astype(np.float32)
# (f(x), f(y), f(z)) -> (L + 16, a, b)
_TO_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], np.float32)
_FROM_LAB = np.array([[1 / 116, 1 / 500, 0], [1 / 116, 0, 0], [1 / 116, 0, -1 / 200]], np.float32)


def rgb_to_lab(images: jax.Array) -> jax.Array:
  """Converts sRGB f32[..., 3] in [0, 1] to (L, a, b), f32[..., 3]."""
  linear = jnp.where(
    images > 0.04045, _power((jnp.maximum(images, 0.04045) + 0.055) / 1.055, 2.4), images / 12.92
  )
  xyz = _times(_TO_XYZ, linear)
  root = jnp.where(xyz > 0.008856, _power(jnp.maximum(xyz, 0.008856), 1 / 3), 7.787 * xyz + 16 / 116)
  return _times(_TO_LAB, root) - jnp.array([16.0, 0.0, 0.0]).reshape((1,) * (images.ndim - 1) + (3,))


def lab_to_rgb(lab: jax.Array) -> jax.Array:
  """The inverse of `rgb_to_lab`; colours outside the gamut of sRGB are clipped to [0, 1]."""
  root = _times(_FROM_LAB, lab + jnp.array([16.0, 0.0, 0.0]).reshape((1,) * (lab.ndim - 1) + (3,)))
  xyz = jnp.where(root > 0.2068966, root**3, (root - 16 / 116) / 7.787)
  linear = jnp.clip(_times(_FROM_XYZ, xyz), 0, 1)
  return jnp.where(
    linear > 0.0031308, 1.055 * _power(jnp.maximum(linear, 0.0031308), 1 / 2.4) - 0.055, 12.92 * linear
  )


def lightness(images: jax.Array) -> jax.Array:
  """Converts sRGB images [..., 3] to grey images f32[..., 3] that hold L / 100 in every channel."""
  return jnp.broadcast_to(rgb_to_lab(images)[..., :1] / 100, images.shape)


def _power(base: jax.Array, exponent: float) -> jax.Array:
  """Computes a power of a positive base as exp(exponent log(base)), which vectorises better than `**`."""
  return jnp.exp(exponent * jnp.log(base))


def _times(matrix: np.ndarray, vectors: jax.Array) -> jax.Array:
  return jnp.einsum("ij,...j->...i", jnp.asarray(matrix), vectors, precision=lax.Precision.HIGHEST)
