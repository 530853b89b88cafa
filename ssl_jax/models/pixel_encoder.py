"""The image encoder of policies, and its maps of many crops of one image at the cost of four images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

KERNEL = 3  # of every convolution


def _central(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
  """A 3x3 kernel whose centre is an orthogonal matrix times the square root of 2, and the rest is zero."""
  middle = nn.initializers.orthogonal(math.sqrt(2.0))(key, shape[2:], dtype)
  return jnp.zeros(shape, dtype).at[KERNEL // 2, KERNEL // 2].set(middle)


class PixelEncoder(nn.Module, kw_only=True):
  """Stacked frames f32[B, H, W, C] in [0, 1] -> f32[B, features] in (-1, 1).

  3x3 convolutions without padding, each with ReLU, the first with stride 2; then a linear layer, LayerNorm
  and tanh. The linear layer ties the encoder to one size of images. With `pyramid=True` it returns all maps,
  a dict of f32[B, h, w, channels] by layer; for `until` and `since` see `models.split`.

  Args:
    depth: number of convolutions; 11 as published.
    channels: of each convolution.
    features: width of the linear layer.
  Source: Hansen et al. 2021, appendix; the initial values are those of the released code.
  """

  depth: int = 11
  channels: int = 32
  features: int = 100

  def layers(self) -> tuple[str, ...]:
    """Names of the feature maps, and of the features last."""
    return (*(f"conv{i + 1}" for i in range(self.depth)), "features")

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool, pyramid: bool = False, since: str = "", until: str = ""
  ):
    names = self.layers()
    done, last = names.index(since) + 1 if since else 0, names.index(until or names[-1])
    x, maps = images, {}
    for number in range(done, min(last + 1, self.depth)):
      if min(x.shape[1:3]) < KERNEL:
        raise ValueError(
          f"a map of {x.shape[1]} x {x.shape[2]} pixels is too small for the convolution {names[number]}; "
          "use fewer config.encoder.depth, or larger crops"
        )
      stride = 1 if number else 2
      conv = nn.Conv(
        self.channels, (KERNEL,) * 2, (stride,) * 2, "VALID", kernel_init=_central, name=names[number]
      )
      maps[names[number]] = x = nn.relu(conv(x))
    if pyramid:
      return maps
    if last < self.depth:
      return x
    linear = nn.Dense(self.features, kernel_init=nn.initializers.orthogonal(), name="linear")
    return jnp.tanh(nn.LayerNorm(epsilon=1e-5, name="norm")(linear(x.reshape(len(x), -1))))


class Perceptron(nn.Module):
  """f32[B, D] -> f32[B, width]: two hidden layers with ReLU, orthogonal initial weights."""

  width: int
  hidden: int = 1024

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    dense = functools.partial(nn.Dense, kernel_init=nn.initializers.orthogonal())
    x = nn.relu(dense(self.hidden, name="first")(x))
    x = nn.relu(dense(self.hidden, name="second")(x))
    return dense(self.width, name="output")(x)


def maps_of_crops(
  apply: Callable[[jax.Array], jax.Array], image: jax.Array, offsets: jax.Array, size: int
) -> jax.Array:
  """The maps of N square crops of one image, out of four passes over the whole image.

  The convolutions have no padding and the first has stride 2. The map of a crop at an even offset is
  therefore a window of the map of the image, and at an odd offset of that of the image moved by one pixel.
  Values and gradients equal those of N separate passes up to rounding.

  Args:
    apply: images f32[B, H, W, C] -> maps f32[B, h, w, K]: the first layers of a PixelEncoder.
    image: f32[H, W, C].
    offsets: i32[N, 2], (top, left) of the crops, which must lie inside the image.
    size: side of the crops in pixels.
  Returns: f32[N, h, w, K].
  """
  height, width, channels = image.shape
  padded = jnp.pad(image, ((0, 1), (0, 1), (0, 0)))
  moved = jnp.stack([padded[y : y + height, x : x + width] for y in (0, 1) for x in (0, 1)])
  maps = apply(moved)
  crop = jax.ShapeDtypeStruct((1, size, size, channels), image.dtype)
  window = jax.eval_shape(apply, crop).shape

  def cut(offset: jax.Array) -> jax.Array:
    parity = 2 * (offset[0] % 2) + offset[1] % 2
    return jax.lax.dynamic_slice(maps, (parity, offset[0] // 2, offset[1] // 2, 0), window)[0]

  return jax.vmap(cut)(offsets)


ENCODERS = {"pixel_encoder": functools.partial(PixelEncoder)}  # a partial like the others
