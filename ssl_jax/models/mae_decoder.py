"""The decoder of a masked autoencoder: from the visible tokens to the pixels of the removed patches.

Self-attention is equivariant to the order of its tokens, so the tokens stay in the order of the mask, visible
ones first, and each one gets the position embedding of its own patch. The released code gathers the tokens
back into image order, which is a scatter in the backward pass; here it is a concatenation. The result is the
same up to the order of its rows.

Source: He et al. 2022, section 3.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models import patches
from ssl_jax.models.dense import Dense
from ssl_jax.models.vit import TOKEN, Blocks, check_heads, layer_norm


class Decoder(nn.Module):
  """Visible tokens f32[B, 1 + K, E], class token first -> removed patches f32[B, L - K, outputs] in mask
  order.

  Args:
    outputs: how many numbers are predicted for each patch: patch * patch * 3.
    width, depth, heads: 512, 8, 16 as published.
    layers, remat, dtype: as in vit.Blocks; the output is float32.
  Raises: ValueError if a size is not positive or the heads do not divide the width.
  """

  outputs: int
  width: int = 512
  depth: int = 8
  heads: int = 16
  layers: Literal["auto", "scan", "unroll"] = "auto"
  remat: Literal["none", "dots", "full"] = "none"
  dtype: Any = jnp.float32

  def __post_init__(self):
    if min(self.width, self.depth, self.heads) < 1:
      raise ValueError(
        f"config.method: decoder_width {self.width}, decoder_depth {self.depth} and decoder_heads "
        f"{self.heads} must be positive"
      )
    check_heads(self.width, self.heads, "config.method.decoder_width", "config.method.decoder_heads")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, tokens: jax.Array, *, train: bool, order: jax.Array, grid: tuple[int, int], everywhere: bool = False
  ) -> jax.Array:
    """Predicts the removed patches.

    Args:
      tokens: f32[B, 1 + K, E], the encoder's output.
      order: i32[B, L], the mask as in patches.py.
      grid: (rows, columns) of patches.
      everywhere: predict all L patches, f32[B, L, outputs], instead of the removed ones.
    """
    visible = tokens.shape[1] - 1
    positions = jnp.asarray(patches.sincos_positions(grid, self.width))[order].astype(self.dtype)
    seen = Dense(self.width, dtype=self.dtype, name="embed")(tokens)
    mask = self.param("mask", TOKEN, (1, 1, self.width)).astype(self.dtype)
    x = jnp.concatenate(
      [seen[:, :1], seen[:, 1:] + positions[:, :visible], mask + positions[:, visible:]], axis=1
    )
    x, _ = Blocks(
      self.depth, self.heads, layers=self.layers, remat=self.remat, dtype=self.dtype, name="blocks"
    )(x, train=train)
    x = layer_norm(x[:, 1 if everywhere else 1 + visible :], "norm", self.dtype)
    return Dense(self.outputs, dtype=self.dtype, name="pixels")(x).astype(jnp.float32)
