"""Masked autoencoder: see a quarter of an image's patches, predict the pixels of the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax import losses, patches
from ssl_jax.config import DataSpec
from ssl_jax.core import Aux, Init, Method, Reconstruction, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, mae_decoder, network, readers, vit
from ssl_jax.normalize import denormalize, normalize


def make(encoder: Network, data: DataSpec, *, mask_ratio: float = 0.75, masking: str = "random", norm_pix: bool = True,
         decoder_width: int = 512, decoder_depth: int = 8, decoder_heads: int = 16) -> Method:
  """Mean squared error on the removed patches of an asymmetric autoencoder; the encoder sees the visible ones alone.

  Args:
    encoder: a vision transformer; its pixels are normalised first, and so are the targets.
    data: unused; every method is built alike.
    mask_ratio: share of the patches removed, in (0, 1). masking: "random", "block" or "grid", see patches.random_order.
    norm_pix: targets are normalised by their own patch's mean and unbiased variance; better features, but a
      reconstruction then needs statistics of the true patch to be shown.
    decoder_width, decoder_depth, decoder_heads: of the decoder, which is dropped after pre-training.
  Metrics: `visible_mean_error`, the loss of predicting every removed pixel as its channel's mean over what is visible.
  Raises: ValueError if the encoder is no vision transformer, or an option is out of range.
  Source: He et al. 2022, section 3 and appendix A; released code for details.
  """
  vision = encoder.module
  if not isinstance(vision, vit.ViT):
    raise ValueError("method 'mae' needs an encoder that can leave patches out; use config.encoder.name='vit_base' or "
                     f"another of {', '.join(vit.ENCODERS)}")
  if vision.pool == "fc_norm":
    raise ValueError("config.encoder.pool 'fc_norm' is for fine-tuning: its norm is not part of a masked autoencoder; "
                     "use 'cls' or 'mean'")
  patches.visible_count(2**20, mask_ratio)
  side = vision.patch
  decoder = network(mae_decoder.Decoder(side * side * 3, decoder_width, decoder_depth, decoder_heads, vision.layers,
                                        vision.remat, jnp.dtype(vision.dtype)))

  def draw(key, images, ratio):
    grid = patches.grid_of(*images.shape[1:3], side)
    return patches.random_order(key, images.shape[0], grid, ratio, masking), grid, patches.visible_count(
        grid[0] * grid[1], ratio)

  def init(key, batch):
    encoder_key, decoder_key, mask_key = jax.random.split(key, 3)
    order, grid, count = draw(mask_key, batch["image"], mask_ratio)
    trunk = encoder.init(encoder_key, batch["image"], visible=order[:, :count])
    tokens, _ = encoder.apply(trunk, batch["image"], visible=order[:, :count])
    top = decoder.init(decoder_key, tokens, order=order, grid=grid)
    return Init({"encoder": trunk.params, "decoder": top.params}, {"encoder": {}, "decoder": {}})

  def predict(params, images, order, grid, count, key=None, **call):
    """f32[B, L - K, outputs]; with a key as in training, where drop path draws from it."""
    draws = {} if key is None else {"train": True, "key": key}
    tokens, _ = encoder.apply(Weights(params["encoder"], {}), images, visible=order[:, :count], **draws)
    return decoder.apply(Weights(params["decoder"], {}), tokens, order=order, grid=grid, **draws, **call)[0]

  def loss(params, model_state, extra, batch, key):
    mask_key, drop_key = jax.random.split(key)
    order, grid, count = draw(mask_key, batch["image"], mask_ratio)
    predicted = predict(params, batch["image"], order, grid, count, drop_key)
    visible, removed = jnp.split(in_mask_order(batch["image"], order), [count], axis=1)
    mean, deviation = statistics(removed)
    target = (removed - mean) / deviation
    guess = (losses.channel_mean(visible) - mean) / deviation
    metrics = {"visible_mean_error": Mean.of(losses.patch_error(guess, target))}
    return losses.patch_error(predicted, target).mean(), Aux(model_state, metrics=metrics)

  def reconstruct(params, model_state, images, key, *, mask_ratio=mask_ratio):
    order, grid, count = draw(key, images, mask_ratio)
    pixels = in_mask_order(images, order)
    mean, deviation = statistics(pixels)
    predicted = predict(params, images, order, grid, count, everywhere=True) * deviation + mean
    seen = jnp.arange(pixels.shape[1])[None, :, None] < count

    def picture(rows):
      rows = patches.take(rows, jnp.argsort(order, axis=1))
      return jnp.clip(denormalize(patches.unpatchify(rows, side, grid), vision.normalize), 0, 1)

    grey = patches.patchify(normalize(jnp.full((1, side, side, 3), 0.5), vision.normalize), side)
    return Reconstruction(picture(jnp.where(seen, pixels, grey)), picture(predicted),
                          picture(jnp.where(seen, pixels, predicted)))

  def in_mask_order(images, order):
    return patches.take(patches.patchify(normalize(images, vision.normalize), side), order)

  def statistics(rows):
    return losses.patch_statistics(rows) if norm_pix else (jnp.zeros(()), jnp.ones(()))

  return Method(init, loss, keep_extra, *readers(encoder), reconstruct=reconstruct)
