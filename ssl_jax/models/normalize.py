"""Scales pixels from [0, 1] to the range that a network was trained with, and back.

The first layer of a network does this, so images stay in [0, 1] everywhere before it.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

Normalization = Literal["none", "imagenet", "cifar10", "eurosat", "centred", "caffe", "signed"]
NORMALIZE = {  # mean, standard deviation of pixels in [0, 1]
  "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
  "eurosat": ((0.3460, 0.3839, 0.4104), (0.1974, 0.1340, 0.1152)),  # of the embedded sample
  "centred": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
  "caffe": ((0.485, 0.458, 0.408), (1 / 255,) * 3),  # pixels of 0 to 255, minus ImageNet's mean
  "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # maps to [-1, 1]
}


def normalize(images: jax.Array, kind: str) -> jax.Array:
  """(images - mean) / std, for images f32[..., 3] in [0, 1]; `kind` is a key of NORMALIZE.

  Channels behind the three of colour pass unchanged.
  """
  mean, std = _statistics(images, kind)
  return (images - mean) / std


def denormalize(images: jax.Array, kind: str) -> jax.Array:
  """The inverse of `normalize`."""
  mean, std = _statistics(images, kind)
  return images * std + mean


def fill_padding(images: jax.Array, sizes: jax.Array, colour: tuple[float, ...]) -> jax.Array:
  """Replaces what lies beyond each image, in the upper left corner of its canvas, by a colour.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    sizes: i32[B, 2], (height, width) of each image.
    colour: in [0, 1]; a mean of NORMALIZE becomes zero in the network.
  """
  rows, columns = (jnp.arange(side) for side in images.shape[1:3])
  inside = (rows[None, :, None] < sizes[:, :1, None]) & (columns[None, None] < sizes[:, 1:, None])
  return jnp.where(inside[..., None], images, jnp.asarray(colour, images.dtype)[None, None, None])


def _statistics(images: jax.Array, kind: str) -> tuple[jax.Array, jax.Array]:
  more = images.shape[-1] - 3
  shape = (1,) * (images.ndim - 1) + (3 + more,)
  (mean, std), neutral = NORMALIZE[kind], (0.0, 1.0)
  mean, std = (
    jnp.asarray((*value, *[fill] * more), jnp.float32).reshape(shape)
    for value, fill in zip((mean, std), neutral)
  )
  return mean, std
