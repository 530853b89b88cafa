"""Vision transformers, for whole images and for the visible patches of a masked autoencoder.

Source: Dosovitskiy et al. 2021; details (pre-norm, exact GELU, epsilon 1e-6, Xavier-uniform weights) follow
  He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", and its released code.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.models import patches
from ssl_jax.models.attention import Attention
from ssl_jax.models.dense import PRODUCT, Dense
from ssl_jax.models.depths import RELATIVE
from ssl_jax.models.normalize import Normalization, normalize

EPSILON = 1e-6
TOKEN = nn.initializers.normal(0.02)
REMAT = {
  "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
  "full": jax.checkpoint_policies.nothing_saveable,
}


def check_heads(width: int, heads: int, width_name: str, heads_name: str) -> None:
  """Raises ValueError if the heads do not divide the width; the message names the nearest numbers that do."""
  if width % heads:
    fits = sorted((h for h in range(1, width + 1) if width % h == 0), key=lambda h: abs(h - heads))
    raise ValueError(
      f"{heads_name} {heads} does not divide {width_name} {width}; use {fits[0]} or {fits[1]} heads"
    )


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """x Phi(x) by erf, as in PyTorch. jax.nn.gelu uses erfc, which is slower on CPU and no better here.

  Its gradient keeps x alone and is one expression of it. Of jax's own rule XLA for TPU keeps three arrays of
  the size of x.
  """
  return x * _phi(x)


def _phi(x: jax.Array) -> jax.Array:
  return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
  density = jnp.exp(-0.5 * x * x) * (2 * np.pi) ** -0.5
  return (gradient * (_phi(x) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def layer_norm(x: jax.Array, name: str, dtype: Any = jnp.float32) -> jax.Array:
  """Adds a LayerNorm to the calling module. It computes in float32 and returns `dtype`."""
  return nn.LayerNorm(epsilon=EPSILON, name=name)(x.astype(jnp.float32)).astype(dtype)


class Block(nn.Module):
  """x + Attention(LN x), then x + MLP(LN x). In training, an image drops each branch at rate `drop_rate`."""

  heads: int
  mlp_width: int
  dtype: Any
  train: bool
  drops: bool  # whether any block of the network drops branches (stochastic depth)
  keep_maps: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, drop_rate: jax.Array, relative: tuple[jax.Array, jax.Array] | None
  ) -> tuple[jax.Array, jax.Array | None]:
    attention = Attention(self.heads, self.dtype, name="attention")
    x = x + self._drop(attention(layer_norm(x, "norm1", self.dtype), relative), drop_rate)
    y = Dense(self.mlp_width, dtype=self.dtype, name="mlp1")(layer_norm(x, "norm2", self.dtype))
    y = Dense(x.shape[-1], dtype=self.dtype, name="mlp2")(gelu(y))
    x = x + self._drop(y, drop_rate)
    return x, (x if self.keep_maps else None)

  def _drop(self, branch: jax.Array, rate: jax.Array) -> jax.Array:
    if not (self.train and self.drops):
      return branch
    kept = jax.random.bernoulli(self.make_rng("drop"), 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(kept, branch / (1 - rate).astype(branch.dtype), 0)


class Blocks(nn.Module):
  """`depth` transformer blocks. Their parameters are stacked, each leaf [depth, ...], whatever `layers` is.

  Args:
    mlp_ratio: width of the MLP's hidden layer divided by the width of the tokens.
    drop_path: drop rate of the last block; the rate grows linearly from 0 at the first block.
    layers: "scan" compiles one block and loops over it (ViT-L compiles fast); "unroll" unrolls the loop,
      which XLA's CPU backend runs faster; "auto" scans on accelerators and unrolls on CPU.
    remat: what the backward pass recomputes: "none"; "dots": all but the dense layers (norms, GELU,
      attention); "full": whole blocks.
    dtype: of activations.
  """

  depth: int
  heads: int
  mlp_ratio: float = 4.0
  drop_path: float = 0.0
  layers: Literal["auto", "scan", "unroll"] = "auto"
  remat: Literal["none", "dots", "full"] = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool,
    keep_maps: bool = False,
    relative: tuple[jax.Array, jax.Array] | None = None,
  ) -> tuple[jax.Array, jax.Array | None]:
    """[B, T, D] -> ([B, T, D], the output of every block [depth, B, T, D] if `keep_maps`, else None).

    `relative` holds what `Attention` takes, with a leading axis for the blocks.
    """
    unrolled = self.layers == "unroll" or (self.layers == "auto" and jax.default_backend() == "cpu")
    block = Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=unrolled)
    scanned = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True, "drop": True},
      length=self.depth,
      unroll=self.depth if unrolled else 1,
    )
    rates = jnp.asarray(np.linspace(0, self.drop_path, self.depth), jnp.float32)
    return scanned(
      self.heads,
      round(self.mlp_ratio * x.shape[-1]),
      self.dtype,
      train,
      self.drop_path > 0,
      keep_maps,
      name="block",
    )(x, rates, relative)


class ViT(nn.Module, kw_only=True):
  """f32[B, H, W, 3] in [0, 1] -> f32[B, width].

  With `pyramid=True` it returns the patch tokens of every block as maps f32[B, h, w, width], in a dict by
  block name; with `normed=True` as well, only the last of them, after the last norm. With `visible`, i32[B,
  K], it is the encoder of a masked autoencoder: it processes only those patches and returns all tokens after
  the last norm, f32[B, 1 + K, width], the class token first, then the patches in the given order.

  Args:
    width, depth, heads, mlp_ratio: of the transformer.
    patch: side of a patch in pixels.
    image_size: side in pixels of the images that the position table is made for; 0 means the images of the
      call. For images of a different size the table is interpolated.
    antialias_positions: how the table is interpolated (bicubic): False as MAE, True as timm; see
      patches.resize_positions.
    positions: "sincos": fixed; "sincos_trained": trained, initialised with the fixed table; "learned":
      trained, initialised with N(0, 0.02).
    relative_positions: adds a trained bias, at first zero, to the attention logits of two patches: for each
      block and head, the sum of one for their offset in rows and one for that in columns. The tables are made
      for the images of the first call, those of training, and interpolated linearly for others. Not with
      `visible`.
    pool: what is returned: the "cls" token or the "mean" of the patch tokens, both after the last norm; or
      "fc_norm", the mean of the patch tokens with a norm of its own after the mean (MAE's fine-tuning).
    drop_path, layers, remat: see Blocks.
    normalize: how pixels are centred and scaled first: a key of NORMALIZE.
    dtype: of activations; parameters, softmax, norm statistics and outputs are float32.
  Raises: ValueError if the heads do not divide the width or the patch does not divide the images.
  """

  width: int
  depth: int
  heads: int
  patch: int = 16
  mlp_ratio: float = 4.0
  image_size: int = 0
  antialias_positions: bool = False
  positions: Literal["sincos", "sincos_trained", "learned"] = "sincos"
  relative_positions: bool = False
  pool: Literal["cls", "mean", "fc_norm"] = "cls"
  drop_path: float = 0.0
  layers: Literal["auto", "scan", "unroll"] = "auto"
  remat: Literal["none", "dots", "full"] = "none"
  normalize: Normalization = "imagenet"
  dtype: Literal["float32", "bfloat16"] = "float32"

  def __post_init__(self):
    if min(self.width, self.depth, self.heads, self.patch) < 1:
      raise ValueError(
        f"config.encoder: width {self.width}, depth {self.depth}, heads {self.heads} and patch {self.patch} "
        "must be positive"
      )
    check_heads(self.width, self.heads, "config.encoder.width", "config.encoder.heads")
    if not 1 <= self.mlp_ratio * self.width < 2**24:
      raise ValueError(
        f"config.encoder.mlp_ratio is {self.mlp_ratio}; use a positive multiple of the width, such as 4.0"
      )
    if not 0 <= self.drop_path < 1:
      raise ValueError(f"config.encoder.drop_path is {self.drop_path}; use a rate in [0, 1), such as 0.1")
    if self.image_size % self.patch:
      raise ValueError(
        f"config.encoder.image_size {self.image_size} does not divide into patches of {self.patch}; use "
        f"{-(-self.image_size // self.patch) * self.patch}"
      )
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool,
    pyramid: bool = False,
    normed: bool = False,
    visible: jax.Array | None = None,
  ):
    grid = patches.grid_of(*images.shape[1:3], patch=self.patch)
    dtype = jnp.dtype(self.dtype)
    pixels = patches.patchify(normalize(images, self.normalize), self.patch)
    # Pixels need no gradient, so selecting their rows adds no scatter to the backward pass.
    pixels = pixels if visible is None else patches.take_patches(pixels, visible)
    x = Dense(self.width, dtype=dtype, name="embed")(pixels) + self._positions(grid, visible).astype(dtype)
    token = jnp.broadcast_to(self.param("cls", TOKEN, (1, 1, self.width)), (x.shape[0], 1, self.width))
    x = jnp.concatenate([token.astype(dtype), x], axis=1)
    x, maps = Blocks(
      self.depth, self.heads, self.mlp_ratio, self.drop_path, self.layers, self.remat, dtype, name="blocks"
    )(x, train=train, keep_maps=pyramid and not normed, relative=self._relative(grid, visible))
    if pyramid and normed:
      return {f"block{self.depth}": layer_norm(x, "norm")[:, 1:].reshape(x.shape[0], *grid, -1)}
    if pyramid:
      return {
        f"block{i + 1}": x[:, 1:].reshape(x.shape[0], *grid, -1).astype(jnp.float32)
        for i, x in enumerate(cast(jax.Array, maps))
      }
    if self.pool == "fc_norm" and visible is None:
      return layer_norm(x[:, 1:].astype(jnp.float32).mean(1), "fc_norm")
    x = layer_norm(x, "norm")
    if visible is not None:
      return x
    return x[:, 0] if self.pool == "cls" else x[:, 1:].mean(1)

  def _positions(self, grid: tuple[int, int], visible: jax.Array | None) -> jax.Array:
    """Position embeddings [1, L, width], or [B, K, width] of the visible patches."""
    side = self.image_size // self.patch
    made = (side, side) if side else grid
    if self.positions == "sincos":
      table = jnp.asarray(patches.sincos_positions(made, self.width))
    else:
      start = (
        TOKEN
        if self.positions == "learned"
        else lambda *_: jnp.asarray(patches.sincos_positions(made, self.width))
      )
      table = self.param("positions", start, (made[0] * made[1], self.width))
    if made != grid:
      table = patches.resize_positions(table, made, grid, antialias=self.antialias_positions)
    if visible is None:
      return table[None]
    if self.positions == "sincos":
      return table[visible]
    return jax.nn.one_hot(visible, table.shape[0]) @ table  # not a gather: its gradient would be a scatter

  def _relative(self, grid: tuple[int, int], visible: jax.Array | None) -> tuple[jax.Array, jax.Array] | None:
    """What `Blocks` takes, for R x C patches: f32[depth, heads, R, R] and f32[depth, heads, C, C]."""
    if not self.relative_positions:
      return None
    if visible is not None:
      raise ValueError(
        "config.encoder.relative_positions is True, but a masked autoencoder has only absolute positions; "
        "use False, and True in the run that starts from its encoder"
      )
    rows, columns = (
      self.get_variable("params", name)
      if self.has_variable("params", name)  # perhaps made for another grid
      else self.param(name, nn.initializers.zeros, (self.depth, self.heads, 2 * side - 1), jnp.float32)
      for name, side in zip(RELATIVE, grid)
    )
    return patches.relative_offsets(rows, grid[0]), patches.relative_offsets(columns, grid[1])


ENCODERS = {
  "vit": functools.partial(ViT),  # any size; a partial like the others, so that its options are read alike
  "vit_tiny": functools.partial(ViT, width=192, depth=12, heads=3),
  "vit_small": functools.partial(ViT, width=384, depth=12, heads=6),
  "vit_base": functools.partial(ViT, width=768, depth=12, heads=12),
  "vit_large": functools.partial(ViT, width=1024, depth=24, heads=16),
  "vit_huge": functools.partial(ViT, width=1280, depth=32, heads=16, patch=14),
}
