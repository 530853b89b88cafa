"""Encoders with a fourth input channel, which says what of an image is visible: 1, or 0 where it is hidden.

The weights of the fourth channel start at zero, so that a network that was trained on colours computes what
it computed before. Hidden pixels have the colour that the encoder's normalisation maps to zero.

Source: Wang et al. 2023, "Test-Time Training on Video Streams", section 3 and released code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.core import PyTree, Weights
from ssl_jax.models import Network, patches
from ssl_jax.models.normalize import NORMALIZE

CHANNELS = 4


def seeing(encoder: Network) -> Network:
  """The encoder with a fourth input channel; images of three channels are wholly visible."""

  def init(key: jax.Array, images: jax.Array, **call) -> Weights:
    weights = encoder.init(key, images[..., :3], **call)
    wide = jax.eval_shape(lambda: encoder.init(key, whole(images), **call)).params
    return weights._replace(params=widen(weights.params, wide))

  def apply(weights: Weights, images: jax.Array, **call):
    return encoder.apply(weights, whole(images), **call)

  return Network(init, apply, encoder.module)


def widen(params: PyTree, shapes: PyTree) -> PyTree:
  """Adds zeros for the fourth channel to the kernels of the first layer.

  Args:
    params: of an encoder of three channels.
    shapes: a tree of the same structure whose leaves have the shapes for four channels.
  """
  return jax.tree.map(lambda leaf, wide: widened(leaf, wide.shape), params, shapes)


def widens(shape: tuple[int, ...], wide: tuple[int, ...]) -> int | None:
  """The axis on which three channels become four; None if the shapes do not differ in that way alone.

  The channels are on an axis of their own (convolutions) or the fastest part of one (patches as rows).
  """
  axes = [axis for axis, sizes in enumerate(zip(shape, wide)) if sizes[0] != sizes[1]]
  if len(shape) != len(wide) or len(axes) != 1 or CHANNELS * shape[axes[0]] != 3 * wide[axes[0]]:
    return None
  return axes[0]


def widened(leaf: jax.Array, wide: tuple[int, ...]) -> jax.Array:
  """The array with zeros for a fourth channel, of the shape `wide`; unchanged if it has that shape.

  Raises: ValueError if the shapes differ in another way.
  """
  if leaf.shape == wide:
    return leaf
  axis = widens(leaf.shape, wide)
  if axis is None:
    raise ValueError(f"an array {leaf.shape} cannot be widened to {wide} for a fourth channel")
  parts = leaf.reshape(*leaf.shape[:axis], -1, 3, *leaf.shape[axis + 1 :])
  pads = [(0, int(place == axis + 1)) for place in range(parts.ndim)]
  return jnp.pad(parts, pads).reshape(wide)


def hide(images: jax.Array, hidden: jax.Array, patch: int, kind: str) -> jax.Array:
  """Hides patches of images.

  Args:
    images: f32[B, H, W, 3] in [0, 1].
    hidden: bool[B, rows, columns], a grid of patches that covers the images.
    patch: side of a patch in pixels.
    kind: the encoder's normalisation, a key of NORMALIZE.
  Returns: f32[B, H, W, 4], with the visibility as the last channel.
  """
  seen = ~at_pixels(hidden, patch, images.shape[1:3])[..., None]
  colour = jnp.asarray(NORMALIZE[kind][0], images.dtype).reshape(1, 1, 1, 3)
  return jnp.concatenate([jnp.where(seen, images, colour), seen.astype(images.dtype)], -1)


def at_pixels(hidden: jax.Array, patch: int, size: tuple[int, ...]) -> jax.Array:
  """bool[B, H, W]: the value of the patch of every pixel, of bool[B, rows, columns]."""
  return hidden.repeat(patch, 1).repeat(patch, 2)[:, : size[0], : size[1]]


def sample_hidden(
  key: jax.Array, count: int, size: tuple[int, int], *, patch: int, mask_ratio: float
) -> jax.Array:
  """bool[count, rows, columns]: the same number of random patches is hidden in every image.

  Args:
    size: (height, width) of the images in pixels; patches at the right and lower edge may be cut off.
  """
  grid = (-(-size[0] // patch), -(-size[1] // patch))
  length = grid[0] * grid[1]
  order = patches.random_order(key, count, grid, mask_ratio, "random")
  return (jnp.argsort(order, axis=1) >= patches.visible_count(length, mask_ratio)).reshape(count, *grid)


def whole(images: jax.Array) -> jax.Array:
  """f32[..., 4]: images with their visibility; those of three channels are wholly visible."""
  if images.shape[-1] == CHANNELS:
    return images
  return jnp.concatenate([images, jnp.ones_like(images[..., :1])], -1)
