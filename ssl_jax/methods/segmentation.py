"""Semantic segmentation: a class for every pixel. With config.start, an encoder is transferred to it."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import losses, models
from ssl_jax.abilities import Pyramid, Segmenter
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.data.host import IGNORE
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, frozen_parts, segmentation, vit
from ssl_jax.models.fcn import Segmentation
from ssl_jax.models.resize import upsample

ABILITIES = (Pyramid, Segmenter)


class Parts(NamedTuple):
  """The network and options of the loss."""

  net: Network  # images -> fcn.Segmentation
  align_corners: bool
  auxiliary: float


def make(
  encoder: Network,
  data: DataSpec,
  *,
  head: Literal["fcn", "fcn_d8", "upernet", "linear"] = "fcn",
  frozen: bool = False,
  taps: tuple[int, ...] = (),
  channels: int = 0,
  auxiliary: float = 0.4,
) -> Method:
  """An encoder and a head that classifies every pixel, trained with cross-entropy at the resolution of the
  masks.

  The logits are upsampled bilinearly to the masks before the loss, which is the mean over all pixels of the
  batch that have a class; a batch without any has the loss 0.

  Args:
    encoder: the image network; its maps should be fine enough, see the option `output_stride` of ResNets.
    data: its `num_classes` is the number of classes, not counting ignored pixels (255).
    head: "fcn": two 3x3 convolutions of dilation 6 (MoCo's protocol); "fcn_d8": MMSegmentation's, with an
      auxiliary head; "upernet": on four blocks of a transformer (MAE's protocol), with an auxiliary head;
      "linear": BatchNorm and a 1x1 convolution.
    frozen: keeps the encoder as it is, its BatchNorm statistics too: with "linear", a linear probe.
    taps: for "upernet", the four blocks whose maps it takes, counted from 1; (): at 1/3, 1/2, 2/3 and all of
      the depth.
    channels: of the head; 0: as published.
    auxiliary: weight of the loss of the auxiliary head.
  Metrics: `pixel_accuracy` of the batch, with the network as it is in training.
  Raises: ValueError if the data has no classes or masks, an option is out of range, or the head does not fit
    the encoder.
  Source: He et al. 2020, "Momentum Contrast", appendix; He et al. 2022, appendix A.3; MMSegmentation.
  """
  check(data, auxiliary, "segmentation")
  options: dict[str, Any] = {"taps": taps} if taps else {}
  options |= {"channels": channels} if channels else {}
  trunk = models.frozen(encoder) if frozen else encoder
  net = segmentation.segmenter(trunk, data.num_classes, head, **options)
  parts = Parts(net, segmentation.HEADS[head].align_corners, auxiliary)
  bound = functools.partial
  abilities = {
    Pyramid: Pyramid(bound(frozen_parts.read_encoder, encoder, pyramid=True)),
    Segmenter: Segmenter(bound(_predict, parts), divisor_of(encoder)),
  }
  init = bound(_init_frozen if frozen else _init, net)
  return Method(init, bound(_loss, parts), keep_extra, bound(frozen_parts.read_encoder, encoder), abilities)


def _init(net: Network, key, batch: Batch) -> Init:
  return Init(*net.init(key, batch["image"]))


def _init_frozen(net: Network, key, batch: Batch) -> Init:
  return Init(*frozen_parts.take_out(net.init(key, batch["image"]), lambda path: path[0] == "encoder"))


def _loss(parts: Parts, params, model_state, extra, batch: Batch, key):
  out, state = parts.net.apply(frozen_parts.whole(params, model_state), batch["image"], train=True, key=key)
  value, found = score(parts, out, batch["mask"])
  return value, Aux({**model_state, **state}, metrics=found)


def score(parts: Parts, out: Segmentation, mask: jax.Array) -> tuple[jax.Array, dict[str, Mean]]:
  """Returns the loss of logits and the metrics of a training step, given the masks uint8[B, H, W]."""

  def mean_loss(logits):
    values, counted = losses.pixel_cross_entropy(_at(mask, logits, parts), mask, ignore=IGNORE)
    total, count = Mean.of(values, counted)
    return total / jnp.maximum(count, 1)

  value = mean_loss(out.logits)
  if out.auxiliary is not None:
    value += parts.auxiliary * mean_loss(out.auxiliary)
  # At the resolution of the maps, which is cheap: a figure to watch, not a result.
  right = jnp.argmax(out.logits, -1).astype(mask.dtype)
  seen = _nearest(mask, *right.shape[1:])
  return value, {"pixel_accuracy": Mean.of(right == seen, seen != IGNORE)}


def _at(mask: jax.Array, logits: jax.Array, parts: Parts) -> jax.Array:
  size = mask.shape[1], mask.shape[2]
  return upsample(logits, size, align_corners=parts.align_corners)


def _nearest(mask: jax.Array, height: int, width: int) -> jax.Array:
  """Integers [B, height, width]: the mask [B, H, W] at the centres of as many cells."""
  places = [
    ((np.arange(small) + 0.5) * full / small).astype(np.int32)
    for small, full in zip((height, width), mask.shape[1:])
  ]
  return mask[:, places[0]][:, :, places[1]]


def _predict(parts: Parts, params, model_state, images):
  return predict(parts, frozen_parts.whole(params, model_state), images)


def predict(parts: Parts, weights: Weights, images: jax.Array) -> jax.Array:
  """f32[B, H, W, C]: the logits of images f32[B, H, W, 3], of their size."""
  out, _ = parts.net.apply(weights, images)
  size = images.shape[1], images.shape[2]
  return upsample(out.logits, size, align_corners=parts.align_corners)


def divisor_of(encoder: Network) -> int:
  """What the height and width of the images must be multiples of."""
  return encoder.module.patch if isinstance(encoder.module, vit.ViT) else 1


def check(data: DataSpec, auxiliary: float, method: str) -> None:
  """Raises ValueError for data without classes or masks, or a negative weight."""
  if data.num_classes < 2:
    raise ValueError(
      f"method {method!r} needs masks with classes, but the data has {data.num_classes} classes; use a "
      "data set that names them, for a mask_folder in classes.txt"
    )
  if "mask" not in data.elements:
    raise ValueError(
      f"method {method!r} needs a mask for every image, but config.host.name delivers only "
      f"{', '.join(data.elements)}; use config.host.name='image_mask'"
    )
  if auxiliary < 0:
    raise ValueError(f"config.method.auxiliary is {auxiliary}; use 0 or a positive weight, such as 0.4")
