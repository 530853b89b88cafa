"""Mixup and cutmix: images of a batch blended with a partner, and the share that is still their own.

The partner of image 2i is image 2i + 1 and the other way round, where timm reverses the batch: batches are shuffled, so both
are random pairs, but neighbours lie on one device.
Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix); one draw for the whole batch, as timm's default.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.core import Key


def partner(x: jax.Array) -> jax.Array:
  """Rows swapped in pairs. Raises ValueError for an odd number of them."""
  if x.shape[0] % 2:
    raise ValueError(
      f"mixup and cutmix pair the images of a batch, which {x.shape[0]} do not allow; use an even "
      "config.batch_size"
    )
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def random_mix(key: Key, images: jax.Array, *, mixup: float, cutmix: float) -> tuple[jax.Array, jax.Array]:
  """(mixed images f32[B, H, W, 3], f32[]: each image's share that is its own).

  Args:
    mixup, cutmix: alpha of the Beta distribution of the share; 0 leaves it out. With both, each is drawn half the time.
  """
  which_key, mixup_key, cutmix_key = jax.random.split(key, 3)
  other = partner(images)
  cut = jax.random.bernoulli(which_key, 0.5 if mixup and cutmix else float(cutmix > 0))
  blend = jax.random.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
  inside = (
    _random_box(cutmix_key, *images.shape[1:3], cutmix) if cutmix else jnp.zeros(images.shape[1:3], bool)
  )
  weight = jnp.where(cut, jnp.where(inside, 0.0, 1.0), blend)  # [H, W]
  return other + weight[None, :, :, None] * (images - other), weight.mean()


def _random_box(key: Key, height: int, width: int, alpha: float) -> jax.Array:
  """bool[H, W]: a rectangle of the image's shape around a uniform centre, cut off at the borders; 1 - Beta of the area."""
  share_key, place_key = jax.random.split(key)
  side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
  place = jax.random.uniform(place_key, (2,))

  def along(place, size):
    middle, half = jnp.floor(place * size), jnp.floor(side * size) // 2
    at = jnp.arange(size, dtype=jnp.float32)
    return (at >= middle - half) & (at < middle + half)

  return along(place[0], height)[:, None] & along(place[1], width)[None, :]
