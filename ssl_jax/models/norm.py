"""Normalisation layers whose results do not depend on the number of devices."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
  """BatchNorm over all but the last axis, of the whole batch or of each of `groups` equal contiguous parts.

  groups=1 is synchronised BatchNorm. groups=8 reproduces, on any number of devices, eight GPUs that each
  normalise with the statistics of their own eighth of the batch (MoCo). Statistics are float32. The running
  statistics are the mean over the groups; the running variance is biased, as in flax and TensorFlow
  (PyTorch's is larger by n / (n - 1)).
  Raises: ValueError if the groups do not divide the batch.
  Source: Ioffe & Szegedy 2015; epsilon and momentum as in PyTorch (whose 0.1 is 0.9 here) and SimCLR.
  """

  train: bool
  groups: int = 1
  momentum: float = 0.9
  epsilon: float = 1e-5
  use_scale: bool = True
  use_bias: bool = True
  scale_init: Any = nn.initializers.ones
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
    running_var = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
    shape = x.shape
    if self.train:
      x = x.reshape(self._groups(shape[0]), -1, width)
      wide = x.astype(jnp.float32)
      mean = wide.mean(1)
      var = jnp.maximum((wide * wide).mean(1) - mean * mean, 0)
      if not self.is_initializing():
        running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean.mean(0)
        running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var.mean(0)
    else:
      x = x.reshape(1, -1, width)
      mean, var = running_mean.value[None], running_var.value[None]
    factor = jax.lax.rsqrt(var + self.epsilon)
    if self.use_scale:
      factor *= self.param("scale", self.scale_init, (width,), jnp.float32)[None]
    shift = -mean * factor
    if self.use_bias:
      shift += self.param("bias", nn.initializers.zeros, (width,), jnp.float32)[None]
    y = x.astype(jnp.float32) * factor[:, None] + shift[:, None]
    return y.astype(self.dtype).reshape(shape)

  def _groups(self, batch: int) -> int:
    if batch % self.groups:
      raise ValueError(
        f"batch of {batch} images does not divide into {self.groups} BatchNorm groups; "
        f"use a batch that is a multiple of {self.groups}, or change config.encoder.batch_groups"
      )
    return self.groups


class GroupNorm(nn.Module):
  """GroupNorm of each image: over all positions and the channels of each of `groups` equal contiguous groups.

  Statistics are float32.
  Raises: ValueError if the groups do not divide the channels.
  Source: Wu & He 2018; epsilon as in PyTorch.
  """

  groups: int
  epsilon: float = 1e-5
  scale_init: Any = nn.initializers.ones
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, width = x.shape[0], x.shape[-1]
    if width % self.groups:
      raise ValueError(
        f"config.encoder.channel_groups {self.groups} does not divide {width} channels; use a divisor"
      )
    scale = self.param("scale", self.scale_init, (width,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
    wide = x.astype(jnp.float32).reshape(batch, -1, self.groups, width // self.groups)
    mean = wide.mean((1, 3))
    var = jnp.maximum((wide * wide).mean((1, 3)) - mean * mean, 0)
    factor = jnp.repeat(jax.lax.rsqrt(var + self.epsilon), width // self.groups, 1) * scale[None]
    shift = bias[None] - jnp.repeat(mean, width // self.groups, 1) * factor
    y = x.astype(jnp.float32).reshape(batch, -1, width) * factor[:, None] + shift[:, None]
    return y.astype(self.dtype).reshape(x.shape)
