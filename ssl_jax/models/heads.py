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
      x = nn.Dense(
        self.width if last else hidden,
        use_bias=False,
        kernel_init=nn.initializers.normal(0.01),
        dtype=self.dtype,
      )(x)
      if not last:
        x = nn.relu(BatchNorm(train, dtype=self.dtype)(x))
      elif self.final_bn:
        x = BatchNorm(train, use_bias=False)(x)
    return x.astype(jnp.float32)


class Pairs(nn.Module):
  """f32[B, N, D], features of N pieces -> f32[B, P, answers]: a two-layer classifier on each of P pairs of pieces.

  The first layer on a concatenation is the sum of one on the first and one on the second piece, so it runs once a piece.
  `first`, `second`: the places of a pair's pieces among the N.
  """

  answers: int
  width: int
  first: tuple[int, ...]
  second: tuple[int, ...]
  dropout: float = 0.5
  momentum: float = 0.9

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    init = nn.initializers.normal(0.01)
    sides = []
    for name, places in (("first", self.first), ("second", self.second)):
      needed = sorted(set(places))
      side = nn.Dense(self.width, use_bias=False, kernel_init=init, name=name)(x[:, jnp.array(needed)])
      sides.append(side[:, jnp.array([needed.index(place) for place in places])])
    x = nn.relu(BatchNorm(train, momentum=self.momentum)(sides[0] + sides[1]))
    x = nn.Dropout(self.dropout, deterministic=not train, rng_collection="drop")(x)
    return nn.Dense(self.answers, kernel_init=nn.initializers.normal(0.005))(x)


class Puzzle(nn.Module):
  """f32[B, N, D], features of N tiles -> f32[B, 1, answers]: each to `width` numbers (BatchNorm, ReLU), then all together."""

  answers: int
  width: int = 1000

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.relu(BatchNorm(train)(nn.Dense(self.width, use_bias=False, kernel_init=_torch_kernel)(x)))
    return Linear(self.answers)(x.reshape(x.shape[0], 1, -1), train=train)


class Counts(nn.Module):
  """[..., D] -> [..., width], non-negative. It starts near zero with every unit alive: a unit below zero would never learn."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    return nn.relu(
      nn.Dense(
        self.width, kernel_init=nn.initializers.normal(0.001), bias_init=nn.initializers.constant(0.03)
      )(x)
    )
