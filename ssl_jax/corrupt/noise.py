"""Noise corruptions: each value of an image f32[H, W, 3] in [0, 1] changes independently."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.corrupt.linear import pick
from ssl_jax.corrupt.tables import PARAMETERS


def gaussian_noise(key, image, severity, *, table):
  """Adds noise N(0, sigma^2). Random: a statistical twin."""
  return image + pick(PARAMETERS["gaussian_noise"][table], severity) * jax.random.normal(key, image.shape)


def speckle_noise(key, image, severity, *, table):
  """Adds image x N(0, sigma^2). Random: a statistical twin."""
  return image + image * pick(PARAMETERS["speckle_noise"][table], severity) * jax.random.normal(
    key, image.shape
  )


def impulse_noise(key, image, severity, *, table):
  """Sets a fraction of the values to 0 or 1 with equal probability, independently in each channel.

  Random: a statistical twin.
  """
  draw = jax.random.uniform(key, image.shape)
  fraction = pick(PARAMETERS["impulse_noise"][table], severity)
  return jnp.where(draw < fraction / 2, 0.0, jnp.where(draw < fraction, 1.0, image))


def shot_noise(key, image, severity, *, table):
  """Returns Poisson(c x) / c, where a white pixel receives c photons on average. Random: a statistical twin.

  The distribution is exact for 8-bit images. The distribution functions of the 256 grey levels are tabulated
  and inverted by binary search, which needs a fixed number of steps, where rejection sampling needs a loop.
  """
  rates = PARAMETERS["shot_noise"][table]
  tables = jnp.asarray(_poisson(tuple(rates)))[severity - 1]  # [256, 2^n]
  level = jnp.round(image * 255).astype(jnp.int32)
  draw = jax.random.uniform(key, image.shape)
  count = jnp.zeros(image.shape, jnp.int32)
  step = tables.shape[1] // 2
  while step:  # finds the first count whose distribution function exceeds the draw
    count = jnp.where(tables[level, count + step - 1] <= draw, count + step, count)
    step //= 2
  return count.astype(jnp.float32) / pick(rates, severity)


@functools.lru_cache(maxsize=None)
def _poisson(rates: tuple[float, ...]) -> np.ndarray:
  """Returns P(count <= k) for each severity and grey level, f32[5, 256, 2^n]."""
  most = max(rates)
  length = 2 ** math.ceil(math.log2(most + 8 * math.sqrt(most) + 8))
  mean = np.arange(256)[None, :, None] / 255 * np.asarray(rates, np.float64)[:, None, None]
  k = np.arange(length)
  factorials = np.cumsum(np.log(np.maximum(k, 1)))
  log_p = k * np.log(np.maximum(mean, 1e-300)) - mean - factorials
  p = np.where(mean > 0, np.exp(log_p), (k == 0).astype(np.float64))
  return np.minimum(np.cumsum(p, -1), 1).astype(np.float32)
