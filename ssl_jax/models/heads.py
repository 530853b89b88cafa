"""Heads: networks after an encoder that pre-training needs and that are dropped afterwards."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm

# As in PyTorch's nn.Linear, weights and biases are uniform in [-1 / sqrt(fan_in), 1 / sqrt(fan_in)].
_torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform(fan_in: int):
  """PyTorch's initial values of biases: uniform in [-1 / sqrt(fan_in), 1 / sqrt(fan_in)]."""
  bound = fan_in**-0.5
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
  """f32[B, D] -> f32[B, width]; initialised as in PyTorch, or with a `scale` as N(0, scale) and zero bias."""

  width: int
  scale: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    kernel = nn.initializers.normal(self.scale) if self.scale else _torch_kernel
    bias = nn.initializers.zeros if self.scale else torch_uniform(x.shape[-1])
    return nn.Dense(self.width, kernel_init=kernel, bias_init=bias)(x)


class MLP(nn.Module):
  """MoCo v2's head: linear to the width of the input, ReLU, linear to `width`; biases, but no BatchNorm."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.relu(Linear(x.shape[-1])(x, train=train))
    return Linear(self.width)(x, train=train)


class SimCLRHead(nn.Module):
  """SimCLR v1's projection g(h): linear, BatchNorm, ReLU, linear; N(0, 0.01) weights and no bias.

  Args:
    layers: number of dense layers; 2 in SimCLR v1, 3 in v2.
    final_bn: adds a BatchNorm without shift after the last layer, as the released code does. The formula of
      the paper, W2 ReLU(W1 h), has none.
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
  """A two-layer classifier on P pairs of N pieces: features f32[B, N, D] -> logits f32[B, P, answers].

  A linear layer on the concatenation of two pieces is the sum of one linear layer per piece, so the first
  layer runs once per piece instead of once per pair.

  Args:
    answers: number of classes.
    width: of the hidden layer.
    first, second: for each of the P pairs, the index among the N pieces of its first and of its second piece.
    dropout: rate, before the last layer.
    momentum: of the BatchNorm.
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
  """A classifier on all N tiles of an image: features f32[B, N, D] -> logits f32[B, 1, answers].

  Each tile goes through the same linear layer to `width` numbers, BatchNorm and ReLU; then one linear layer
  takes the concatenation of all tiles.
  """

  answers: int
  width: int = 1000

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.relu(BatchNorm(train)(nn.Dense(self.width, use_bias=False, kernel_init=_torch_kernel)(x)))
    return Linear(self.answers)(x.reshape(x.shape[0], 1, -1), train=train)


class Joined(nn.Module):
  """A classifier on N images in order: features f32[B, N, D] -> logits f32[B, 1, answers].

  One linear layer takes the concatenation of all N features; with `hidden`, a linear layer of this width and
  ReLU come before it.
  """

  answers: int
  hidden: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = x.reshape(x.shape[0], 1, -1)
    if self.hidden:
      x = nn.relu(Linear(self.hidden)(x, train=train))
    return Linear(self.answers, scale=0.01)(x, train=train)


class MaskMap(nn.Module):
  """Logits of a mask: maps f32[B, h, w, c] -> f32[B, side, side].

  A 1x1 convolution to `channels`, BatchNorm if `norm`, ReLU, and a linear layer from the whole map to all
  pixels of the mask, which ties the network to one size of images.

  Args:
    dropout: fraction of the inputs of the linear layer that is dropped in training.
  Source: Pinheiro et al. 2015 (DeepMask), the branch of the mask, whose linear layer has a low rank.
  """

  channels: int
  side: int
  norm: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    x = nn.Conv(self.channels, (1, 1), use_bias=not self.norm, kernel_init=init)(x)
    x = nn.relu(BatchNorm(train)(x) if self.norm else x).reshape(len(x), -1)
    x = nn.Dropout(self.dropout, deterministic=not train, rng_collection="drop")(x)
    return Linear(self.side**2)(x, train=train).reshape(-1, self.side, self.side)


class Counts(nn.Module):
  """[..., D] -> [..., width], non-negative counts: a linear layer and ReLU.

  The outputs start small and positive (bias 0.03), because a unit that ReLU sets to zero gets no gradient.
  """

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    return nn.relu(
      nn.Dense(
        self.width, kernel_init=nn.initializers.normal(0.001), bias_init=nn.initializers.constant(0.03)
      )(x)
    )
