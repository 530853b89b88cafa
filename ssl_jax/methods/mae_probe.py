"""A classifier on a frozen masked autoencoder, which goes on restoring, and so learning, on test images."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax import losses, metrics
from ssl_jax.core import Adaptable, Aux, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods.mae import autoencoder
from ssl_jax.models import Network, network, vit_head


def make(
  encoder: Network,
  data: DataSpec,
  *,
  head: Literal["transformer", "linear"] = "transformer",
  head_width: int = 768,
  head_depth: int = 12,
  head_heads: int = 12,
  label_smoothing: float = 0.1,
  mask_ratio: float = 0.75,
  masking: Literal["random", "block", "grid"] = "random",
  norm_pix: bool = True,
  decoder_width: int = 512,
  decoder_depth: int = 8,
  decoder_heads: int = 16,
) -> Method:
  """Cross-entropy of a head on all tokens of an encoder that does not move ("ViT probing").

  Encoder and decoder are those of config.start.workdir, a run of method 'mae', and lie in the model state, frozen. At test time the
  image is restored from differently masked copies, and encoder and mask token move, or what config.tasks.ttt.moves names.

  Args:
    encoder: a vision transformer. data: its `num_classes` is the width of the classifier.
    head: "transformer" of `head_width`, `head_depth`, `head_heads`; "linear" on the class token.
    label_smoothing: share of the target spread over all classes, in [0, 1).
    mask_ratio, masking, norm_pix, decoder_width, decoder_depth, decoder_heads: as in the run of method 'mae'.
  Raises: ValueError if the data has no classes, the encoder is no vision transformer, or an option is out of range.
  Source: Gandelsman et al. 2022, sections 3 and 4 and released code.
  """
  if data.num_classes < 2:
    raise ValueError(
      f"method 'mae_probe' needs labels, but the data has {data.num_classes} classes; use a data set with classes"
    )
  if not 0 <= label_smoothing < 1:
    raise ValueError(f"config.method.label_smoothing is {label_smoothing}; use a value in [0, 1)")
  auto = autoencoder(
    encoder,
    mask_ratio=mask_ratio,
    masking=masking,
    norm_pix=norm_pix,
    decoder_width=decoder_width,
    decoder_depth=decoder_depth,
    decoder_heads=decoder_heads,
  )
  vision = encoder.module
  top = network(
    vit_head.TokenProbe(data.num_classes)
    if head == "linear"
    else vit_head.ViTHead(
      data.num_classes,
      head_width,
      head_depth,
      head_heads,
      vision.layers,
      vision.remat,
      jnp.dtype(vision.dtype),
    )
  )

  def tokens_of(params, images):
    """All tokens, f32[B, 1 + L, D], and the grid of the patches."""
    grid = images.shape[1] // vision.patch, images.shape[2] // vision.patch
    everything = jnp.broadcast_to(jnp.arange(grid[0] * grid[1])[None], (len(images), grid[0] * grid[1]))
    return encoder.apply(Weights(params, {}), images, visible=everything)[0], grid

  def init(key, batch):
    frozen_key, head_key = jax.random.split(key)
    frozen = auto.init(frozen_key, batch["image"])
    tokens, grid = tokens_of(frozen["encoder"], batch["image"])
    made = top.init(head_key, tokens, grid=grid)
    return Init({"head": made.params}, {"head": made.model_state, "frozen": frozen})

  def loss(params, model_state, extra, batch, key):
    tokens, grid = tokens_of(model_state["frozen"]["encoder"], batch["image"])
    logits, state = top.apply(Weights(params["head"], model_state["head"]), tokens, train=True, grid=grid)
    value = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing).mean()
    return value, Aux(
      {**model_state, "head": state}, metrics={"accuracy": metrics.accuracy(logits, batch["label"])}
    )

  def everything(params, model_state):
    return {**params, **model_state["frozen"]}

  def predict(params, model_state, images):
    tokens, grid = tokens_of(params["encoder"], images)
    return top.apply(Weights(params["head"], model_state["head"]), tokens, grid=grid)[0]

  def errors(params, model_state, task):
    return auto.errors(params, *task)[0]

  def of_frozen(function):
    return lambda params, model_state, images, *args, **options: function(
      model_state["frozen"], images, *args, **options
    )

  def read(frozen, images, **call):
    return encoder.apply(Weights(frozen["encoder"], {}), images, **call)[0]

  return Method(
    init,
    loss,
    keep_extra,
    of_frozen(read),
    of_frozen(lambda frozen, images: read(frozen, images, pyramid=True)),
    predict=lambda params, model_state, images: predict(everything(params, model_state), model_state, images),
    reconstruct=of_frozen(auto.reconstruct),
    adaptable=Adaptable(
      lambda key, images: (images, auto.draw(key, images)),
      errors,
      predict,
      ("encoder", "decoder/mask"),
      reconstruct=lambda params, model_state, images, key: auto.reconstruct(params, images, key),
      params=everything,
    ),
  )
