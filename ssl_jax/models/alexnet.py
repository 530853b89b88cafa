"""AlexNet, as the pretext tasks before residual networks used it: Caffe's version, and that of torchvision.

Source: Krizhevsky et al. 2012; Caffe's reference network CaffeNet, which pools before it normalises;
  Krizhevsky 2014 ("one weird trick") for the version of one column without local response normalisation.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.normalize import Normalization, normalize

# (of convolutions, of the fully connected layers)
INITS = {
  "gaussian": (nn.initializers.normal(0.01), nn.initializers.normal(0.005)),
  "xavier": (nn.initializers.variance_scaling(1.0, "fan_in", "uniform"),) * 2,  # Caffe's: +-sqrt(3 / fan_in)
  "he": (nn.initializers.variance_scaling(2.0, "fan_in", "normal"),) * 2,
}
GROUPED = (2, 4, 5)  # the convolutions that were divided over two GPUs; Caffe also starts their biases at 1
POOLED = (1, 2, 5)  # the convolutions that max-pooling follows


class AlexNet(nn.Module):
  """f32[B, H, W, 3] in [0, 1] -> f32[B, D], the last fully connected layer after its ReLU.

  Each of the five convolutions is followed by BatchNorm if `norm` says so and a ReLU; after the first, second
  and fifth comes max-pooling of 3x3 pixels at stride 2, and after the pooling of the first and second local
  response normalisation if `lrn`. With `pyramid=True` it returns all maps, a dict of f32[B, h, w, C]: "conv1"
  to "conv5" after their ReLU and "pool5".

  Args:
    widths: channels of the convolutions, as published.
    width: channels of the first convolution; the others change in proportion. 0: as published.
    fc: widths of the fully connected layers; (): none, and the result is the average of "pool5" over its
      pixels. The first of them ties the network to one size of images.
    groups: number of groups of the second, fourth and fifth convolution: 2 as published, or 1.
    stem_stride, stem_padding: of the first convolution, of 11x11 pixels: 4, or 2 for tiles (jigsaw).
    lrn: local response normalisation of five channels, alpha 1e-4, beta 0.75.
    norm: BatchNorm of no layer ("none"), of the third convolution and all layers after it ("deep"), or of all
      layers ("all"). Fully connected layers with it have no bias of their own.
    affine: whether BatchNorm has a scale and a bias.
    batch_groups: see BatchNorm.
    dropout: fraction of each fully connected layer that is dropped in training.
    ceil: whether pooling keeps an incomplete window at the end, as Caffe does.
    kernel_init: "gaussian" (Caffe: 0.01 for convolutions, 0.005 for fully connected layers), for pixels
      scaled to hundreds as by normalize="caffe"; "xavier" (Caffe: uniform, by the number of inputs); "he".
      With the first two, the biases of the second, fourth and fifth convolution and of fully connected layers
      start at 1.
    normalize, dtype: as in `ResNet`.
  Raises: ValueError if an image is too small for the pooling, with the size that it leaves, or if `groups`
    does not divide the channels.
  """

  widths: tuple[int, ...]
  width: int = 0
  fc: tuple[int, ...] = (4096, 4096)
  groups: int = 2
  stem_stride: int = 4
  stem_padding: int = 0
  lrn: bool = True
  norm: Literal["none", "deep", "all"] = "none"
  affine: bool = True
  batch_groups: int = 1
  dropout: float = 0.0
  ceil: bool = True
  kernel_init: Literal["gaussian", "xavier", "he"] = "gaussian"
  normalize: Normalization = "caffe"
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool, pyramid: bool = False):
    dtype, maps = jnp.dtype(self.dtype), {}
    x = normalize(images, self.normalize).astype(dtype)
    for number, published in enumerate(self.widths, 1):
      width = published * self.width // self.widths[0] if self.width else published
      x = self._conv(number, x.shape[-1], width, dtype)(x)
      maps[f"conv{number}"] = x = nn.relu(self._norm(f"norm{number}", number, train, dtype)(x))
      x = max_pool(x, self.ceil) if number in POOLED else x
      x = local_response_norm(x) if self.lrn and number <= 2 else x
    maps["pool5"] = x
    if pyramid:
      return {name: leaf.astype(jnp.float32) for name, leaf in maps.items()}
    if not self.fc:
      return x.astype(jnp.float32).mean((1, 2))
    x = x.reshape(x.shape[0], -1)
    for number, width in enumerate(self.fc, len(self.widths) + 1):
      dense = nn.Dense(
        width,
        use_bias=self.norm == "none",
        kernel_init=INITS[self.kernel_init][1],
        bias_init=self._bias_init(True),
        dtype=dtype,
        name=f"fc{number}",
      )
      x = nn.relu(self._norm(f"norm{number}", number, train, dtype)(dense(x)))
      if self.dropout:
        x = nn.Dropout(self.dropout, rng_collection="drop", name=f"drop{number}")(x, deterministic=not train)
    return x.astype(jnp.float32)

  def _conv(self, number: int, inputs: int, width: int, dtype) -> nn.Conv:
    """The convolution of this number, counted from 1."""
    groups = self.groups if number in GROUPED else 1
    if inputs % groups or width % groups:
      raise ValueError(
        f"config.encoder.groups is {groups}, which does not divide the {inputs} or {width} channels of "
        f"convolution {number}; use a divisor, or 1"
      )
    kernel, stride, padding = {1: (11, self.stem_stride, self.stem_padding), 2: (5, 1, 2)}.get(
      number, (3, 1, 1)
    )
    return nn.Conv(
      width,
      (kernel,) * 2,
      (stride,) * 2,
      ((padding, padding),) * 2,
      feature_group_count=groups,
      kernel_init=INITS[self.kernel_init][0],
      bias_init=self._bias_init(number in GROUPED),
      dtype=dtype,
      name=f"conv{number}",
    )

  def _norm(self, name: str, number: int, train: bool, dtype):
    """BatchNorm of the layer of this number, or nothing."""
    if self.norm == "none" or (self.norm == "deep" and number < 3):
      return lambda x: x
    return BatchNorm(
      train, self.batch_groups, use_scale=self.affine, use_bias=self.affine, dtype=dtype, name=name
    )

  def _bias_init(self, one: bool):
    return nn.initializers.constant(float(one and self.kernel_init != "he"))


def local_response_norm(
  x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
  """x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta, of any array [..., C].

  Source: Krizhevsky et al. 2012, section 3.3, with alpha divided by the size as in Caffe and PyTorch.
  """
  squares = jnp.square(x.astype(jnp.float32))
  padded = jnp.pad(squares, ((0, 0),) * (x.ndim - 1) + ((size // 2, (size - 1) // 2),))
  total = functools.reduce(jnp.add, (padded[..., i : i + x.shape[-1]] for i in range(size)))
  return (x.astype(jnp.float32) * (k + alpha / size * total) ** -beta).astype(x.dtype)


def max_pool(x: jax.Array, ceil: bool) -> jax.Array:
  """Max-pooling of 3x3 pixels at stride 2, without padding; with `ceil` an incomplete last window counts.

  Raises: ValueError if the map is smaller than a window.
  """
  sides = x.shape[1:3]
  if min(sides) < (2 if ceil else 3):
    raise ValueError(
      f"a map of {sides[0]}x{sides[1]} pixels is too small to be pooled by windows of 3x3; use larger "
      "images, such as config.data.size=227, or config.encoder.stem_stride=2"
    )
  padding = [(0, 2 * math.ceil((side - 3) / 2) + 3 - side if ceil else 0) for side in sides]
  return nn.max_pool(x, (3, 3), (2, 2), padding)  # pyright: ignore[reportArgumentType]


ENCODERS = {
  "caffenet": functools.partial(AlexNet, widths=(96, 256, 384, 384, 256)),
  "alexnet": functools.partial(
    AlexNet,
    widths=(64, 192, 384, 256, 256),
    groups=1,
    stem_padding=2,
    lrn=False,
    ceil=False,
    kernel_init="he",
    normalize="imagenet",
  ),
}
