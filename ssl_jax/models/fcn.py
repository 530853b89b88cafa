"""Fully convolutional heads for semantic segmentation: from feature maps to the logits of every pixel.

Source: Long et al. 2015; He et al. 2020, "Momentum Contrast", appendix (two convolutions of dilation 6).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.resnet import INITS, conv_layer


class Segmentation(NamedTuple):
  """Logits at the resolution of the feature maps; `resize.upsample` brings them to that of the image."""

  logits: jax.Array  # f32[B, h, w, classes]
  auxiliary: jax.Array | None = None  # f32[B, h', w', classes] of the auxiliary head; only in training


class ConvNorm(nn.Module):
  """A square convolution without bias, BatchNorm and ReLU: [B, h, w, C] -> [B, h, w, channels] of `dtype`."""

  channels: int
  kernel: int
  train: bool
  dilation: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    options: dict[str, Any] = dict(kernel_init=INITS["fan_out"], dtype=self.dtype, name="conv")
    x = conv_layer(self.channels, self.kernel, dilation=self.dilation, **options)(x)
    return nn.relu(BatchNorm(self.train, dtype=self.dtype, name="norm")(x))


class PixelClassifier(nn.Module):
  """A 1x1 convolution with bias, [B, h, w, C] -> f32[B, h, w, classes], after dropout of whole channels."""

  classes: int
  train: bool
  dropout: float = 0.0
  deviation: float = 0.01  # of the initial kernel

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.Dropout(
      self.dropout, broadcast_dims=(1, 2), deterministic=not self.train, rng_collection="drop", name="dropout"
    )(x)
    start = nn.initializers.normal(self.deviation)
    kernel = self.param("kernel", start, (x.shape[-1], self.classes), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.classes,), jnp.float32)
    logits = jnp.einsum("bhwc,cn->bhwn", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
    return logits + bias[None, None, None]


class FCN(nn.Module):
  """A fully convolutional network on one map: [B, h, w, C] -> f32[B, h, w, classes].

  Args:
    channels, convolutions, dilation: of the 3x3 convolutions, each with BatchNorm and ReLU.
    concatenate: one more 3x3 convolution, on the concatenation of the input and the features.
    dropout: rate at which channels are dropped before the 1x1 convolution to the classes.
  """

  classes: int
  channels: int
  train: bool
  convolutions: int = 1
  dilation: int = 1
  concatenate: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = y = x.astype(self.dtype)
    for i in range(self.convolutions):
      y = ConvNorm(self.channels, 3, self.train, self.dilation, self.dtype, name=f"conv{i + 1}")(y)
    if self.concatenate:
      y = ConvNorm(self.channels, 3, self.train, dtype=self.dtype, name="conv_both")(
        jnp.concatenate([x, y], axis=-1)
      )
    return PixelClassifier(self.classes, self.train, self.dropout, name="classes")(y)


class FCNHead(nn.Module):
  """An FCN on the last of the maps [B, h, w, C]; in training, an auxiliary FCN of one convolution on the
  first.

  Args:
    channels, convolutions, dilation, concatenate, dropout: of the FCN on the last map.
    auxiliary_channels: of the auxiliary FCN, which has the same dropout; 0: there is none.
    dtype: of activations; parameters, statistics and logits are float32.
  """

  classes: int
  channels: int = 256
  convolutions: int = 2
  dilation: int = 6
  concatenate: bool = False
  dropout: float = 0.0
  auxiliary_channels: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> Segmentation:
    logits = FCN(
      self.classes,
      self.channels,
      train,
      self.convolutions,
      self.dilation,
      self.concatenate,
      self.dropout,
      self.dtype,
      name="main",
    )(maps[-1])
    if not (self.auxiliary_channels and (train or self.is_initializing())):
      return Segmentation(logits)
    beside = FCN(
      self.classes, self.auxiliary_channels, train, dropout=self.dropout, dtype=self.dtype, name="auxiliary"
    )
    return Segmentation(logits, beside(maps[0]))


class LinearHead(nn.Module):
  """BatchNorm and a 1x1 convolution on the last map: a linear probe of every pixel's feature vector."""

  classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> Segmentation:
    x = BatchNorm(train, dtype=self.dtype, name="norm")(maps[-1].astype(self.dtype))
    return Segmentation(PixelClassifier(self.classes, train, name="classes")(x))
