"""UPerNet for a plain vision transformer: a feature pyramid from four of its blocks.

Source: Xiao et al. 2018, "Unified Perceptual Parsing"; the rescaling of the maps follows Bao et al. 2022
  (BEiT), whose code He et al. 2022 (MAE) use.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.fcn import FCN, ConvNorm, PixelClassifier, Segmentation
from ssl_jax.models.heads import torch_uniform
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.resize import pool, upsample
from ssl_jax.models.vit import gelu

BINS = (1, 2, 3, 6)  # cells per side of the pyramid pooling


class Double(nn.Module):
  """A transposed 2x2 convolution with stride 2: [B, h, w, C] -> [B, 2h, 2w, channels] of `dtype`.

  Its windows do not overlap, so it is one matrix product. It is initialised as in PyTorch, or with a
  `deviation` as N(0, deviation) and zero bias. By default `channels` is C.
  """

  dtype: Any
  channels: int = 0
  deviation: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, before = x.shape
    channels, start, zeros = self.channels or before, torch_uniform(4 * before), nn.initializers.zeros
    if self.deviation:
      start = nn.initializers.normal(self.deviation)
    shape = (2, 2, before, channels)
    kernel = self.param("kernel", start, shape, jnp.float32).astype(self.dtype)
    bias = self.param("bias", zeros if self.deviation else start, (channels,), jnp.float32).astype(self.dtype)
    y = jnp.einsum("bhwc,ijcd->bhiwjd", x, kernel) + bias.reshape((1,) * 5 + (-1,))
    return y.reshape(batch, 2 * height, 2 * width, channels)


class Rescale(nn.Module):
  """Four maps [B, h, w, C] at one resolution -> the same at 4, 2, 1 and 1/2 times that resolution."""

  train: bool
  dtype: Any

  @nn.compact
  def __call__(self, maps: list[jax.Array]) -> list[jax.Array]:
    x4, x2, x1, half = maps
    x4 = BatchNorm(self.train, dtype=self.dtype, name="norm4")(Double(self.dtype, name="first4")(x4))
    x4 = Double(self.dtype, name="second4")(gelu(x4))
    return [x4, Double(self.dtype, name="first2")(x2), x1, nn.max_pool(half, (2, 2), (2, 2))]


class PyramidPooling(nn.Module):
  """Adds the averages over 1, 2, 3 and 6 cells per side to a map: [B, h, w, C] -> [B, h, w, channels].

  Source: Zhao et al. 2017, "Pyramid Scene Parsing Network".
  """

  channels: int
  train: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    parts, exact = [x], x.astype(jnp.float32)
    for grid in BINS:
      y = pool(exact, grid).astype(self.dtype)
      y = ConvNorm(self.channels, 1, self.train, dtype=self.dtype, name=f"pool{grid}")(y)
      parts.append(upsample(y, (x.shape[1], x.shape[2]), False))
    both = jnp.concatenate(parts, axis=-1)
    return ConvNorm(self.channels, 3, self.train, dtype=self.dtype, name="conv_both")(both)


class UPerHead(nn.Module):
  """UPerNet on four maps [B, h, w, C], shallow to deep -> logits f32[B, 4h, 4w, classes].

  The auxiliary FCN of one convolution reads the third map: f32[B, h, w, classes].

  Args:
    channels: of every layer of the pyramid; 0: those of the maps.
    dropout: rate at which channels are dropped before the 1x1 convolutions to the classes.
    auxiliary_channels: of the auxiliary FCN; 0: there is none.
    dtype: of activations; parameters, statistics and logits are float32.
  Raises: ValueError for maps of a single row or column, which cannot be halved.
  """

  classes: int
  channels: int = 0
  dropout: float = 0.1
  auxiliary_channels: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> Segmentation:
    rows, columns, width = maps[0].shape[1:]
    if min(rows, columns) < 2:
      raise ValueError(
        f"config.method.head 'upernet' halves maps of {rows} x {columns} patches; use images "
        "of at least two patches a side"
      )
    channels = self.channels or width
    taps = [x.astype(self.dtype) for x in maps]
    levels = Rescale(train, self.dtype, name="rescale")(taps)
    conv = lambda name, x, kernel: ConvNorm(channels, kernel, train, dtype=self.dtype, name=name)(x)
    merged = [PyramidPooling(channels, train, self.dtype, name="pooling")(levels[-1])]
    for i in (2, 1, 0):  # from coarse to fine
      lateral = conv(f"lateral{i + 1}", levels[i], 1)
      merged.insert(0, lateral + upsample(merged[0], (lateral.shape[1], lateral.shape[2]), False))
    smooth = [conv(f"smooth{i + 1}", x, 3) for i, x in enumerate(merged[:-1])] + merged[-1:]
    finest = (smooth[0].shape[1], smooth[0].shape[2])
    y = conv("conv_all", jnp.concatenate([upsample(x, finest, False) for x in smooth], axis=-1), 3)
    logits = PixelClassifier(self.classes, train, self.dropout, name="classes")(y)
    if not (self.auxiliary_channels and (train or self.is_initializing())):
      return Segmentation(logits)
    options: dict[str, Any] = dict(dropout=self.dropout, dtype=self.dtype, name="auxiliary")
    return Segmentation(logits, FCN(self.classes, self.auxiliary_channels, train, **options)(taps[2]))
