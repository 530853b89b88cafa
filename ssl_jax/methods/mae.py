"""Masked autoencoder: from a quarter of the patches of an image, predict the pixels of the other patches."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.abilities import Pyramid, Reconstruction, Restorer
from ssl_jax.core import Aux, DataSpec, Init, Key, Method, PyTree, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, mae_decoder, network, patches, readers, vit
from ssl_jax.models.normalize import denormalize, normalize

ABILITIES = (Pyramid, Restorer)


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
  """Mean squared error on the removed patches. The autoencoder is asymmetric: its encoder gets only the
  visible patches.

  Args:
    encoder: a vision transformer. It normalises the pixels first, and the targets are normalised alike.
    data: not used; all methods have the same signature.
    mask_ratio: fraction of the patches that is removed, in (0, 1).
    masking: see `patches.random_order`.
    norm_pix: normalise each target patch by its own mean and unbiased variance. This gives better features,
      but a picture of a reconstruction then needs the statistics of the true patches.
    decoder_width, decoder_depth, decoder_heads: of the decoder, which only pre-training needs.
  Metrics: `visible_mean_error`, the loss of a prediction that sets every removed pixel to the mean of its
    channel over the visible patches.
  Raises: ValueError if the encoder is not a vision transformer, or an option is out of range.
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
    order = auto.sample_masks(mask_key, batch["image"])
    error, guess = auto.errors(params, batch["image"], order, train=True, key=drop_key)
    return error.mean(), Aux(model_state, metrics={"visible_mean_error": Mean.of(guess)})

  def reconstruct(params, model_state, images, key, **options):
    return auto.reconstruct(params, images, key, **options)

  encode, maps = readers(encoder)
  return Method(init, loss, keep_extra, encode, {Pyramid: Pyramid(maps), Restorer: Restorer(reconstruct)})


class Mask(NamedTuple):
  """Which patches are visible."""

  order: jax.Array  # i32[B, L]: a permutation of the patches, the visible ones first
  grid: tuple[int, int]  # (rows, columns) of patches
  count: int  # number of visible patches

  @property
  def seen(self) -> jax.Array:
    """i32[B, count]: the visible patches."""
    return self.order[:, : self.count]


class Autoencoder(NamedTuple):
  """A masked autoencoder. Its functions take the parameters {"encoder", "decoder"} and images f32[B, H, W, 3]
  in [0, 1].
  """

  encoder: Network
  decoder: Network
  patch: int  # side of a patch in pixels
  normalization: str  # of the pixels, see models/normalize.py
  mask_ratio: float
  masking: str
  norm_pix: bool

  def init(self, key: Key, images: jax.Array) -> PyTree:
    """Returns the initial parameters {"encoder", "decoder"}."""
    encoder_key, decoder_key, mask_key = jax.random.split(key, 3)
    mask = self.mask_of(self.sample_masks(mask_key, images), images)
    trunk = self.encoder.init(encoder_key, images, visible=mask.seen)
    tokens, _ = self.encoder.apply(trunk, images, visible=mask.seen)
    top = self.decoder.init(decoder_key, tokens, order=mask.order, grid=mask.grid)
    return {"encoder": trunk.params, "decoder": top.params}

  def sample_masks(self, key: Key, images: jax.Array, mask_ratio: float = 0.0) -> jax.Array:
    """i32[B, L]: a random order of the patches of each image, the visible ones first.

    See `patches.random_order`. If `mask_ratio` is 0, the ratio of the method is used.
    """
    grid = patches.grid_of(*images.shape[1:3], patch=self.patch)
    return patches.random_order(key, images.shape[0], grid, mask_ratio or self.mask_ratio, self.masking)

  def mask_of(self, order: jax.Array, images: jax.Array, mask_ratio: float = 0.0) -> Mask:
    """Returns the mask that an order of the patches of these images describes."""
    grid = patches.grid_of(*images.shape[1:3], patch=self.patch)
    return Mask(order, grid, patches.visible_count(grid[0] * grid[1], mask_ratio or self.mask_ratio))

  def predict(self, params: PyTree, images: jax.Array, mask: Mask, *, everywhere: bool = False, **training):
    """f32[B, N, P]: the predicted patches in the order of the mask; all of them with `everywhere`, otherwise
    the removed ones.
    """
    tokens, _ = self.encoder.apply(Weights(params["encoder"], {}), images, visible=mask.seen, **training)
    decoder = Weights(params["decoder"], {})
    return self.decoder.apply(
      decoder, tokens, order=mask.order, grid=mask.grid, everywhere=everywhere, **training
    )[0]

  def errors(self, params: PyTree, images: jax.Array, order: jax.Array, **training):
    """Returns two arrays f32[B, N]: the mean squared error of each removed patch, and the error of predicting
    the mean of the visible pixels instead.
    """
    mask = self.mask_of(order, images)
    predicted = self.predict(params, images, mask, **training)
    visible, removed = jnp.split(self._in_mask_order(images, mask), [mask.count], axis=1)
    mean, deviation = self._statistics(removed)
    target = (removed - mean) / deviation
    guess = (losses.channel_mean(visible) - mean) / deviation
    return losses.patch_error(predicted, target), losses.patch_error(guess, target)

  def reconstruct(
    self, params: PyTree, images: jax.Array, key: Key, *, mask_ratio: float = 0.0
  ) -> Reconstruction:
    """Returns the visible patches of the images and their reconstruction, as images in [0, 1].

    If `mask_ratio` is 0, the ratio of the method is used.
    """
    mask = self.mask_of(self.sample_masks(key, images, mask_ratio), images, mask_ratio)
    pixels = self._in_mask_order(images, mask)
    mean, deviation = self._statistics(pixels)
    predicted = self.predict(params, images, mask, everywhere=True) * deviation + mean
    seen = jnp.arange(pixels.shape[1])[None, :, None] < mask.count
    grey = normalize(jnp.full((1, self.patch, self.patch, 3), 0.5), self.normalization)
    grey = patches.patchify(grey, self.patch)
    rows = (jnp.where(seen, pixels, grey), predicted, jnp.where(seen, pixels, predicted))
    return Reconstruction(*(self._picture(part, mask) for part in rows))

  def _in_mask_order(self, images: jax.Array, mask: Mask) -> jax.Array:
    found = patches.patchify(normalize(images, self.normalization), self.patch)
    return patches.take_patches(found, mask.order)

  def _statistics(self, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    return losses.patch_statistics(rows) if self.norm_pix else (jnp.zeros(()), jnp.ones(()))

  def _picture(self, rows: jax.Array, mask: Mask) -> jax.Array:
    """Converts normalised patches in the order of the mask, f32[B, L, P], to images in [0, 1]."""
    rows = patches.take_patches(rows, jnp.argsort(mask.order, axis=1))
    images = patches.unpatchify(rows, self.patch, mask.grid)
    return jnp.clip(denormalize(images, self.normalization), 0, 1)


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
  """Builds the autoencoder of `make`, also for other methods that restore images. The arguments and the
  errors are those of `make`.
  """
  vision = _check(encoder, mask_ratio)
  decoder = mae_decoder.Decoder(
    vision.patch**2 * 3,
    decoder_width,
    decoder_depth,
    decoder_heads,
    vision.layers,
    vision.remat,
    jnp.dtype(vision.dtype),
  )
  return Autoencoder(encoder, network(decoder), vision.patch, vision.normalize, mask_ratio, masking, norm_pix)


def _check(encoder: Network, mask_ratio: float) -> vit.ViT:
  vision = encoder.module
  if not isinstance(vision, vit.ViT):
    raise ValueError(
      "a masked autoencoder needs an encoder that can leave patches out; use config.encoder.name='vit_base' "
      f"or another of {', '.join(vit.ENCODERS)}"
    )
  if vision.pool == "fc_norm":
    raise ValueError(
      "config.encoder.pool 'fc_norm' is for fine-tuning: its norm is not part of a masked autoencoder; "
      "use 'cls' or 'mean'"
    )
  patches.visible_count(2**20, mask_ratio)
  return vision
