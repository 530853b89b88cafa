"""Masked autoencoder: see a quarter of an image's patches, predict the pixels of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.core import Aux, DataSpec, Init, Key, Method, PyTree, Reconstruction, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, mae_decoder, network, patches, readers, vit
from ssl_jax.models.normalize import denormalize, normalize


def make(
  encoder: Network,
  data: DataSpec,
  *,
  mask_ratio: float = 0.75,
  masking: Literal["random", "block", "grid"] = "random",
  norm_pix: bool = True,
  decoder_width: int = 512,
  decoder_depth: int = 8,
  decoder_heads: int = 16,
) -> Method:
  """Mean squared error on the removed patches of an asymmetric autoencoder; the encoder sees the visible ones alone.

  Args:
    encoder: a vision transformer; its pixels are normalised first, and so are the targets.
    data: unused; every method is built alike.
    mask_ratio: share of the patches removed, in (0, 1). masking: see patches.random_order.
    norm_pix: targets are normalised by their own patch's mean and unbiased variance; better features, but a
      reconstruction then needs statistics of the true patch to be shown.
    decoder_width, decoder_depth, decoder_heads: of the decoder, which is dropped after pre-training.
  Metrics: `visible_mean_error`, the loss of predicting every removed pixel as its channel's mean over what is visible.
  Raises: ValueError if the encoder is no vision transformer, or an option is out of range.
  Source: He et al. 2022, section 3 and appendix A; released code for details.
  """
  auto = autoencoder(
    encoder,
    mask_ratio=mask_ratio,
    masking=masking,
    norm_pix=norm_pix,
    decoder_width=decoder_width,
    decoder_depth=decoder_depth,
    decoder_heads=decoder_heads,
  )

  def init(key, batch):
    return Init(auto.init(key, batch["image"]), {"encoder": {}, "decoder": {}})

  def loss(params, model_state, extra, batch, key):
    mask_key, drop_key = jax.random.split(key)
    order = auto.draw(mask_key, batch["image"])
    error, guess = auto.errors(params, batch["image"], order, train=True, key=drop_key)
    return error.mean(), Aux(model_state, metrics={"visible_mean_error": Mean.of(guess)})

  def reconstruct(params, model_state, images, key, **options):
    return auto.reconstruct(params, images, key, **options)

  return Method(init, loss, keep_extra, *readers(encoder), reconstruct=reconstruct)


class Autoencoder(NamedTuple):
  """A masked autoencoder as functions of params {"encoder", "decoder"} and images f32[B, H, W, 3] in [0, 1]."""

  init: Callable[[Key, jax.Array], PyTree]
  draw: Callable[[Key, jax.Array], jax.Array]  # (key, images) -> masks i32[B, L], see patches.py
  errors: Callable[
    ..., tuple[jax.Array, jax.Array]
  ]  # (params, images, masks) -> f32[B], and that of the visible mean
  reconstruct: Callable[..., Reconstruction]  # (params, images, key, *, mask_ratio)


def autoencoder(
  encoder: Network,
  *,
  mask_ratio: float,
  masking: str,
  norm_pix: bool,
  decoder_width: int,
  decoder_depth: int,
  decoder_heads: int,
) -> Autoencoder:
  """The parts of `make`, which has the arguments, for whatever else learns by restoring images. Raises as `make` does."""
  vision = _check(encoder, mask_ratio)
  side, kind = vision.patch, vision.normalize
  decoder = network(
    mae_decoder.Decoder(
      side * side * 3,
      decoder_width,
      decoder_depth,
      decoder_heads,
      vision.layers,
      vision.remat,
      jnp.dtype(vision.dtype),
    )
  )

  def mask_of(order, images, ratio=mask_ratio) -> Mask:
    grid = patches.grid_of(*images.shape[1:3], side)
    return Mask(order, grid, patches.visible_count(grid[0] * grid[1], ratio))

  def draw(key, images, ratio=mask_ratio) -> jax.Array:
    return patches.random_order(
      key, images.shape[0], patches.grid_of(*images.shape[1:3], side), ratio, masking
    )

  def init(key, images):
    encoder_key, decoder_key, mask_key = jax.random.split(key, 3)
    mask = mask_of(draw(mask_key, images), images)
    trunk = encoder.init(encoder_key, images, visible=mask.seen)
    tokens, _ = encoder.apply(trunk, images, visible=mask.seen)
    top = decoder.init(decoder_key, tokens, order=mask.order, grid=mask.grid)
    return {"encoder": trunk.params, "decoder": top.params}

  def predict(params, images, mask, *, everywhere=False, **training):
    tokens, _ = encoder.apply(Weights(params["encoder"], {}), images, visible=mask.seen, **training)
    return decoder.apply(
      Weights(params["decoder"], {}),
      tokens,
      order=mask.order,
      grid=mask.grid,
      everywhere=everywhere,
      **training,
    )[0]

  def errors(params, images, order, **training):
    mask = mask_of(order, images)
    predicted = predict(params, images, mask, **training)
    visible, removed = jnp.split(in_mask_order(images, mask), [mask.count], axis=1)
    mean, deviation = statistics(removed)
    target = (removed - mean) / deviation
    guess = (losses.channel_mean(visible) - mean) / deviation
    return losses.patch_error(predicted, target), losses.patch_error(guess, target)

  def reconstruct(params, images, key, *, mask_ratio=mask_ratio):
    mask = mask_of(draw(key, images, mask_ratio), images, mask_ratio)
    pixels = in_mask_order(images, mask)
    mean, deviation = statistics(pixels)
    predicted = predict(params, images, mask, everywhere=True) * deviation + mean
    seen = jnp.arange(pixels.shape[1])[None, :, None] < mask.count
    grey = patches.patchify(normalize(jnp.full((1, side, side, 3), 0.5), kind), side)
    return Reconstruction(
      *(
        _picture(rows, mask, side, kind)
        for rows in (jnp.where(seen, pixels, grey), predicted, jnp.where(seen, pixels, predicted))
      )
    )

  def in_mask_order(images, mask):
    return patches.take_patches(patches.patchify(normalize(images, kind), side), mask.order)

  def statistics(rows):
    return losses.patch_statistics(rows) if norm_pix else (jnp.zeros(()), jnp.ones(()))

  return Autoencoder(init, draw, errors, reconstruct)


class Mask(NamedTuple):
  """Which patches are seen."""

  order: jax.Array  # i32[B, L], the visible ones first
  grid: tuple[int, int]
  count: int  # of visible ones

  @property
  def seen(self) -> jax.Array:
    return self.order[:, : self.count]


def _picture(rows: jax.Array, mask: Mask, side: int, kind: str) -> jax.Array:
  """Normalised patches in the order of the mask, f32[B, L, P], as images in [0, 1]."""
  rows = patches.take_patches(rows, jnp.argsort(mask.order, axis=1))
  return jnp.clip(denormalize(patches.unpatchify(rows, side, mask.grid), kind), 0, 1)


def _check(encoder: Network, mask_ratio: float) -> vit.ViT:
  vision = encoder.module
  if not isinstance(vision, vit.ViT):
    raise ValueError(
      "a masked autoencoder needs an encoder that can leave patches out; use config.encoder.name='vit_base' or "
      f"another of {', '.join(vit.ENCODERS)}"
    )
  if vision.pool == "fc_norm":
    raise ValueError(
      "config.encoder.pool 'fc_norm' is for fine-tuning: its norm is not part of a masked autoencoder; "
      "use 'cls' or 'mean'"
    )
  patches.visible_count(2**20, mask_ratio)
  return vision
