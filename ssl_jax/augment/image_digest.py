"""A number for each image that depends on its pixels only, to draw random numbers for the image from.

Draws from a key of the batch depend on the place of an image in it, and so on the batch size and the order.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.core import Key


def digest(image: jax.Array) -> jax.Array:
  """u32[]: a number that depends on every pixel of an image [...] in [0, 1] and on its position."""
  levels = jnp.round(image * 255).astype(jnp.uint32).ravel()
  return (levels * (jnp.arange(levels.size, dtype=jnp.uint32) * jnp.uint32(2654435761) + jnp.uint32(1))).sum(
    dtype=jnp.uint32
  )


def key_of(key: Key, image: jax.Array) -> Key:
  """Returns a key for the draws of this image: a function of `key` and the pixels."""
  return jax.random.fold_in(key, digest(image))
