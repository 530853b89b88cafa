"""Mixup and cutmix: each image of a batch is mixed with a partner image.

The partner of image 2i is image 2i + 1 and vice versa, where timm pairs the batch with its reverse. Batches
are shuffled, so both give random pairs, but neighbouring images lie on the same device.
Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix); one draw for the whole batch, timm's default.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.core import Key


def partner(x: jax.Array) -> jax.Array:
  """Swaps the rows 2i and 2i + 1 of [B, ...]. Raises ValueError if B is odd."""
  if x.shape[0] % 2:
    raise ValueError(
      f"mixup and cutmix pair the images of a batch, but {x.shape[0]} is an odd number of images; use an "
      "even config.batch_size"
    )
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def random_mix(key: Key, images: jax.Array, *, mixup: float, cutmix: float) -> tuple[jax.Array, jax.Array]:
  """Applies mixup or cutmix to a batch.

  Args:
    images: f32[B, H, W, 3] with an even B.
    mixup, cutmix: the alpha of the Beta(alpha, alpha) distribution of the fraction that an image keeps of
      itself; 0 disables that operation. If both are set, each is chosen with probability 1/2.
  Returns: (mixed images f32[B, H, W, 3], f32[]: the fraction of its own content that each image keeps, which
    is the weight of its own label).
  Raises: ValueError if B is odd.
  """
  which_key, mixup_key, cutmix_key = jax.random.split(key, 3)
  other = partner(images)
  cut = jax.random.bernoulli(which_key, 0.5 if mixup and cutmix else float(cutmix > 0))
  blend = jax.random.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
  inside = (
    _random_box(cutmix_key, *images.shape[1:3], alpha=cutmix)
    if cutmix
    else jnp.zeros(images.shape[1:3], bool)
  )
  weight = jnp.where(cut, jnp.where(inside, 0.0, 1.0), blend)  # [H, W]
  return other + weight[None, :, :, None] * (images - other), weight.mean()


def _random_box(key: Key, height: int, width: int, alpha: float) -> jax.Array:
  """Returns the mask bool[H, W] of a random rectangle with the aspect ratio of the image.

  Its area is the fraction 1 - Beta(alpha, alpha) of the image and its centre is uniform in the image; the
  part outside the image is cut off.
  """
  area_key, place_key = jax.random.split(key)
  side = jnp.sqrt(1 - jax.random.beta(area_key, alpha, alpha))
  place = jax.random.uniform(place_key, (2,))

  def covered(place, size):
    middle, half = jnp.floor(place * size), jnp.floor(side * size) // 2
    at = jnp.arange(size, dtype=jnp.float32)
    return (at >= middle - half) & (at < middle + half)

  return covered(place[0], height)[:, None] & covered(place[1], width)[None, :]
