"""What stands behind an encoder during pre-training and is dropped afterwards."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm

# PyTorch's nn.Linear: uniform within 1/sqrt(fan_in), weights and biases alike.
_torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _torch_bias(fan_in: int):
  bound = fan_in**-0.5
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
  """f32[B, D] -> f32[B, width], float32; initialised as PyTorch's Linear, or N(0, `scale`) with zero bias."""

  width: int
  scale: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    kernel = nn.initializers.normal(self.scale) if self.scale else _torch_kernel
    bias = nn.initializers.zeros if self.scale else _torch_bias(x.shape[-1])
    return nn.Dense(self.width, kernel_init=kernel, bias_init=bias)(x)


class MLP(nn.Module):
  """MoCo v2's head: linear to the input's own width, ReLU, linear to `width`; biases, no BatchNorm."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.relu(Linear(x.shape[-1])(x, train=train))
    return Linear(self.width)(x, train=train)


class SimCLRHead(nn.Module):
  """SimCLR v1's projection g(h): linear, BatchNorm, ReLU, linear; dense layers N(0, 0.01) without bias.

  `final_bn` puts a BatchNorm without shift behind the last layer, as the released code does; the paper's formula
  W2 ReLU(W1 h) has none. `layers=3` is SimCLR v2's.
  """

  width: int
  layers: int = 2
  final_bn: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    hidden = x.shape[-1]
    for layer in range(self.layers):
      last = layer == self.layers - 1
      x = nn.Dense(self.width if last else hidden, use_bias=False,
                   kernel_init=nn.initializers.normal(0.01), dtype=self.dtype)(x)
      if not last:
        x = nn.relu(BatchNorm(train, dtype=self.dtype)(x))
      elif self.final_bn:
        x = BatchNorm(train, use_bias=False)(x)
    return x.astype(jnp.float32)
