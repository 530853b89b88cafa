"""A classifier on a frozen masked autoencoder. The autoencoder can adapt at test time by restoring images."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

from ssl_jax import losses, metrics
from ssl_jax.abilities import Adaptable, Classifier, Pyramid, Restorer
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, PyTree, Weights, keep_extra
from ssl_jax.methods.mae import Autoencoder, autoencoder
from ssl_jax.models import Network, network, vit, vit_head

ABILITIES = (Pyramid, Classifier, Restorer, Adaptable)


class Probe(NamedTuple):
  """A frozen autoencoder and the head that is trained on its tokens."""

  auto: Autoencoder
  head: Network
  label_smoothing: float


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
  """The cross-entropy of a head on all tokens of a frozen encoder ("ViT probing").

  The encoder and the decoder come from config.start.workdir, a run of method 'mae'; the model state holds
  them under "frozen". At test time the image is restored from differently masked copies. The parameters that
  adapt are the encoder and the mask token, or those that config.tasks.ttt.trainable names.

  Args:
    encoder: a vision transformer.
    data: its `num_classes` is the width of the classifier.
    head: "transformer": a transformer of `head_width`, `head_depth` and `head_heads` on all tokens; "linear":
      a linear layer on the class token.
    label_smoothing: fraction of the target that is spread over all classes, in [0, 1).
    mask_ratio, masking, norm_pix, decoder_width, decoder_depth, decoder_heads: as in the run of method 'mae'.
  Raises: ValueError if the data has no classes, the encoder is not a vision transformer, or an option is out
    of range.
  Source: Gandelsman et al. 2022, sections 3 and 4 and released code.
  """
  _check(data, label_smoothing)
  auto = autoencoder(
    encoder,
    mask_ratio=mask_ratio,
    masking=masking,
    norm_pix=norm_pix,
    decoder_width=decoder_width,
    decoder_depth=decoder_depth,
    decoder_heads=decoder_heads,
  )
  vision = cast(vit.ViT, encoder.module)  # `autoencoder` has checked it
  top = vit_head.TokenProbe(data.num_classes)
  if head == "transformer":
    sizes = (data.num_classes, head_width, head_depth, head_heads)
    top = vit_head.ViTHead(*sizes, vision.layers, vision.remat, jnp.dtype(vision.dtype))
  probe = Probe(auto, network(top), label_smoothing)
  bound = functools.partial
  abilities = {
    Pyramid: Pyramid(bound(_read_frozen, probe, pyramid=True)),
    Classifier: Classifier(bound(_predict_frozen, probe)),
    Restorer: Restorer(bound(_reconstruct_frozen, probe)),
    Adaptable: Adaptable(
      make_task=lambda key, batch: (batch["image"], auto.sample_masks(key, batch["image"])),
      loss=lambda params, model_state, task: auto.errors(params, *task)[0],
      predict=lambda params, model_state, batch: _predict(probe, params, model_state, batch["image"]),
      trainable=("encoder", "decoder/mask"),
      reconstruct=lambda params, model_state, images, key: auto.reconstruct(params, images, key),
      params=_all_params,
    ),
  }
  return Method(bound(_init, probe), bound(_loss, probe), keep_extra, bound(_read_frozen, probe), abilities)


def _init(probe: Probe, key, batch: Batch) -> Init:
  frozen_key, head_key = jax.random.split(key)
  frozen = probe.auto.init(frozen_key, batch["image"])
  tokens, grid = _tokens(probe, frozen["encoder"], batch["image"])
  head = probe.head.init(head_key, tokens, grid=grid)
  return Init({"head": head.params}, {"head": head.model_state, "frozen": frozen})


def _loss(probe: Probe, params, model_state, extra, batch: Batch, key):
  tokens, grid = _tokens(probe, model_state["frozen"]["encoder"], batch["image"])
  head = Weights(params["head"], model_state["head"])
  logits, state = probe.head.apply(head, tokens, train=True, grid=grid)
  value = losses.cross_entropy(logits, batch["label"], smoothing=probe.label_smoothing).mean()
  found = {"accuracy": metrics.accuracy(logits, batch["label"])}
  return value, Aux({**model_state, "head": state}, metrics=found)


def _all_params(params: PyTree, model_state: PyTree) -> PyTree:
  """Returns the parameters of the head, the encoder and the decoder."""
  return {**params, **model_state["frozen"]}


def _predict(probe: Probe, params, model_state, images):
  """f32[B, C]: the logits; `params` are those of `_all_params`."""
  tokens, grid = _tokens(probe, params["encoder"], images)
  return probe.head.apply(Weights(params["head"], model_state["head"]), tokens, grid=grid)[0]


def _predict_frozen(probe: Probe, params, model_state, images):
  return _predict(probe, _all_params(params, model_state), model_state, images)


def _read_frozen(probe: Probe, params, model_state, images, **call):
  """Returns the features of the encoder, or with `pyramid=True` its feature maps."""
  return probe.auto.encoder.apply(Weights(model_state["frozen"]["encoder"], {}), images, **call)[0]


def _reconstruct_frozen(probe: Probe, params, model_state, images, key, **options):
  return probe.auto.reconstruct(model_state["frozen"], images, key, **options)


def _tokens(probe: Probe, encoder: PyTree, images):
  """Returns (all tokens f32[B, 1 + L, D], the grid of the patches)."""
  grid = images.shape[1] // probe.auto.patch, images.shape[2] // probe.auto.patch
  count = grid[0] * grid[1]
  everything = jnp.broadcast_to(jnp.arange(count)[None], (len(images), count))
  return probe.auto.encoder.apply(Weights(encoder, {}), images, visible=everything)[0], grid


def _check(data: DataSpec, label_smoothing: float) -> None:
  if data.num_classes < 2:
    raise ValueError(
      f"method 'mae_probe' needs labels, but the data has {data.num_classes} classes; "
      "use a data set with classes"
    )
  if not 0 <= label_smoothing < 1:
    raise ValueError(f"config.method.label_smoothing is {label_smoothing}; use a value in [0, 1)")
