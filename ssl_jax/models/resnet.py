"""ResNet v1.5 for photographs and for small images.

Source: He et al. 2016; in v1.5 the 3x3 convolution of a bottleneck has the stride. Padding is symmetric as in
  PyTorch, so that published PyTorch weights can be used.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm, GroupNorm
from ssl_jax.models.normalize import Normalization, normalize

INITS = {
  "fan_out": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),  # torchvision, MoCo
  "fan_in": nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),  # SimCLR
}


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or as a bottleneck 1x1, 3x3, 1x1 with four times the channels."""

  channels: int
  stride: int
  bottleneck: bool
  conv: Any
  norm: Any
  zero_init: bool
  shortcut: str = "conv"
  dilations: tuple[int, int] = (1, 1)  # of the convolution with the stride, and of the one after it

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    strided = self.conv(self.channels, 3, self.stride, self.dilations[0])
    last = self.norm(
      scale_init=nn.initializers.zeros if self.zero_init else nn.initializers.ones, name="norm_last"
    )
    if self.bottleneck:
      y = nn.relu(self.norm()(self.conv(self.channels, 1)(x)))
      y = nn.relu(self.norm()(strided(y)))
      y = last(self.conv(4 * self.channels, 1)(y))
    else:
      y = nn.relu(self.norm()(strided(x)))
      y = last(self.conv(self.channels, 3, 1, self.dilations[1])(y))
    if x.shape != y.shape and self.shortcut == "pad":
      more = y.shape[-1] - x.shape[-1]
      x = jnp.pad(
        x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
      )
    elif x.shape != y.shape:
      x = self.norm(name="norm_shortcut")(self.conv(y.shape[-1], 1, self.stride, name="conv_shortcut")(x))
    return nn.relu(x + y)


class ResNet(nn.Module):
  """f32[B, H, W, 3] in [0, 1] -> f32[B, D], the average of the last map over its pixels.

  With `pyramid=True` it returns all maps, a dict of f32[B, h, w, C] by layer. With `until=layer` it stops
  after that layer and returns its map; with `since=layer` it takes such a map and computes the rest. See
  `models.split`.

  Args:
    depths: number of blocks in each stage.
    bottleneck: blocks of 1x1, 3x3, 1x1 convolutions instead of two 3x3; with four stages D is then 32 width
      instead of 8 width.
    width: channels of the first stage: 64 as published; 128 and 256 are SimCLR's 2x and 4x.
    stem: "imagenet": 7x7 with stride 2, then max-pooling; "cifar": 3x3, stride 1; "small": 3x3, stride 2.
    norm: "batch" or "group".
    batch_groups: see BatchNorm.
    channel_groups: number of groups of channels of GroupNorm.
    shortcut: where a block changes the shape, "conv" is a 1x1 convolution with a norm; "pad" takes every
      other pixel and adds channels of zeros, half in front and half behind (option A of the paper's CIFAR
      networks).
    padding: of the convolutions: "symmetric", or "same" as in TensorFlow, which at stride 2 pads even sides
      only at the end.
    zero_init: initialise the last scale of each block with zero (SimCLR does; MoCo and torchvision do not).
    kernel_init: "fan_out" (torchvision, MoCo) or "fan_in" (SimCLR).
    normalize: how pixels are centred and scaled first: a key of NORMALIZE.
    dtype: of activations; parameters, statistics and outputs are float32.
    output_stride: the largest allowed ratio of image side to map side; 0 means no limit. A stride that would
      exceed it is replaced by dilation, see `dilate`.
    dilate: which 3x3 convolutions of a stage that loses its stride get the stride times the dilation of the
      stage before. "later": all after the one that loses its stride (torchvision, MMSegmentation); sampled at
      the replaced stride, the map then equals that of the strided network. "all": that one too (MoCo's FCN).
    remat: "full" keeps only the activations between blocks; the backward pass recomputes the others.
  """

  depths: tuple[int, ...]
  bottleneck: bool
  width: int = 64
  stem: Literal["imagenet", "cifar", "small"] = "imagenet"
  norm: Literal["batch", "group"] = "batch"
  batch_groups: int = 1
  channel_groups: int = 8
  shortcut: Literal["conv", "pad"] = "conv"
  padding: Literal["symmetric", "same"] = "symmetric"
  zero_init: bool = False
  kernel_init: Literal["fan_out", "fan_in"] = "fan_out"
  normalize: Normalization = "imagenet"
  dtype: Literal["float32", "bfloat16"] = "float32"
  output_stride: int = 0
  dilate: Literal["later", "all"] = "later"
  remat: Literal["none", "full"] = "none"

  def layers(self) -> tuple[str, ...]:
    """Names of the feature maps, from the finest to the coarsest."""
    return ("stem", *(f"stage{i + 1}" for i in range(len(self.depths))))

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool, pyramid: bool = False, since: str = "", until: str = ""
  ):
    names = self.layers()
    done, last = names.index(since) + 1 if since else 0, names.index(until or names[-1])
    dtype = jnp.dtype(self.dtype)
    conv = functools.partial(
      conv_layer, same=self.padding == "same", kernel_init=INITS[self.kernel_init], dtype=dtype
    )
    norm = norm_layer(self, train, dtype)
    x, maps = images.astype(dtype), {}
    if not done:
      x = normalize(images, self.normalize).astype(dtype)
      x = conv(
        self.width, 7 if self.stem == "imagenet" else 3, 1 if self.stem == "cifar" else 2, name="conv_stem"
      )(x)
      maps["stem"] = x = nn.relu(norm(name="norm_stem")(x))
    if self.stem == "imagenet" and done <= 1 <= last:
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
    block_of = nn.remat(Block) if self.remat == "full" else Block
    for stage, (stride, *dilations) in enumerate(self._strides()):
      if not done <= stage + 1 <= last:
        continue
      for block in range(self.depths[stage]):
        x = block_of(
          self.width * 2**stage,
          1 if block else stride,
          self.bottleneck,
          conv,
          norm,
          self.zero_init,
          self.shortcut,
          (dilations[min(block, 1)], dilations[1]),
          name=f"stage{stage + 1}_block{block + 1}",
        )(x)
      maps[f"stage{stage + 1}"] = x
    if pyramid:
      return {k: v.astype(jnp.float32) for k, v in maps.items()}
    return x.astype(jnp.float32) if until else x.astype(jnp.float32).mean((1, 2))

  def _strides(self) -> list[tuple[int, int, int]]:
    """For each stage: (its stride, the dilation of its first 3x3 convolution, the dilation of the others)."""
    made, found, dilation = {"imagenet": 4, "small": 2, "cifar": 1}[self.stem], [], 1
    for stage in range(len(self.depths)):
      stride = 2 if stage else 1
      if self.output_stride and made * stride > self.output_stride:
        before, dilation = dilation, dilation * stride
        found.append((1, dilation if self.dilate == "all" else before, dilation))
      else:
        found.append((stride, dilation, dilation))
        made *= stride
    return found


def norm_layer(encoder: nn.Module, train: bool, dtype):
  """The constructor of the norm that an encoder's `norm`, `batch_groups` and `channel_groups` select."""
  if encoder.norm == "group":
    return functools.partial(GroupNorm, encoder.channel_groups, dtype=dtype)
  return functools.partial(BatchNorm, train, groups=encoder.batch_groups, dtype=dtype)


def conv_layer(
  channels: int,
  kernel: int,
  stride: int = 1,
  dilation: int = 1,
  *,
  same: bool = False,
  bias: bool = False,
  **options,
) -> nn.Conv:
  """A square convolution. Padding is symmetric as in PyTorch, or `same` as in TensorFlow."""
  pad = dilation * (kernel // 2)
  return nn.Conv(
    channels,
    (kernel,) * 2,
    (stride,) * 2,
    "SAME" if same else ((pad, pad),) * 2,
    kernel_dilation=dilation,
    use_bias=bias,
    **options,
  )


SMALL = dict(bottleneck=False, width=16, stem="cifar")
ENCODERS = {
  "resnet8": functools.partial(ResNet, depths=(1, 1, 1), **SMALL),
  "resnet20": functools.partial(
    ResNet, depths=(3, 3, 3), shortcut="pad", **SMALL
  ),  # He et al. 2016, section 4.2
  "resnet10": functools.partial(ResNet, depths=(1, 1, 1, 1), bottleneck=False),
  "resnet18": functools.partial(ResNet, depths=(2, 2, 2, 2), bottleneck=False),
  "resnet34": functools.partial(ResNet, depths=(3, 4, 6, 3), bottleneck=False),
  "resnet50": functools.partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True),
  "resnet101": functools.partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True),
  "resnet152": functools.partial(ResNet, depths=(3, 8, 36, 3), bottleneck=True),
}
