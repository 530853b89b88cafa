"""Classifiers on the tokens of a frozen vision transformer: a smaller transformer, or a linear layer.

Source: Gandelsman et al. 2022, "Test-Time Training with Masked Autoencoders", section 3 ("ViT probing"), and
  its released code.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.models import patches
from ssl_jax.models.dense import Dense
from ssl_jax.models.heads import Linear
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.vit import EPSILON, Blocks, check_heads, layer_norm


class ViTHead(nn.Module):
  """A transformer on tokens f32[B, 1 + L, D], class token first -> logits f32[B, classes].

  L is rows * columns of `grid`. The tokens go through a linear layer to `width`, fixed position embeddings,
  transformer blocks and a norm; a linear layer maps the class token to the logits.

  Args:
    width, depth, heads: 768, 12, 12 as published.
    layers, remat, dtype: as in vit.Blocks; the output is float32.
  Raises: ValueError if a size is not positive or the heads do not divide the width.
  """

  classes: int
  width: int = 768
  depth: int = 12
  heads: int = 12
  layers: Literal["auto", "scan", "unroll"] = "auto"
  remat: Literal["none", "dots", "full"] = "none"
  dtype: Any = jnp.float32

  def __post_init__(self):
    if min(self.width, self.depth, self.heads) < 1:
      raise ValueError(
        f"config.method: head_width {self.width}, head_depth {self.depth} and head_heads {self.heads} must "
        "be positive"
      )
    check_heads(self.width, self.heads, "config.method.head_width", "config.method.head_heads")
    super().__post_init__()

  @nn.compact
  def __call__(self, tokens: jax.Array, *, train: bool, grid: tuple[int, int]) -> jax.Array:
    positions = np.concatenate(
      [np.zeros((1, self.width), np.float32), patches.sincos_positions(grid, self.width)]
    )
    x = Dense(self.width, dtype=self.dtype, name="embed")(tokens.astype(self.dtype)) + jnp.asarray(positions)[
      None
    ].astype(self.dtype)
    x, _ = Blocks(
      self.depth, self.heads, layers=self.layers, remat=self.remat, dtype=self.dtype, name="blocks"
    )(x, train=train)
    return Linear(self.classes, 0.02, name="classes")(layer_norm(x[:, 0], "norm"), train=train)


class TokenProbe(nn.Module):
  """Logits f32[B, classes] from the class token alone: BatchNorm without scale and shift, then linear."""

  classes: int

  @nn.compact
  def __call__(self, tokens: jax.Array, *, train: bool, grid: tuple[int, int]) -> jax.Array:
    x = BatchNorm(train, epsilon=EPSILON, use_scale=False, use_bias=False, name="norm")(tokens[:, 0])
    return Linear(self.classes, 0.01, name="classes")(x, train=train)
