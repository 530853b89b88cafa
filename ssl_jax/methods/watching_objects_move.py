"""Watching objects move: segment in a single image what would move, learned from frames of videos."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from ssl_jax import losses, models
from ssl_jax.abilities import PretextExamples, Pyramid, Segmenter
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, keep_extra
from ssl_jax.data.host import IGNORE
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, frozen_parts, heads
from ssl_jax.models.resize import upsample

ABILITIES = (Pyramid, Segmenter)


def make(
  encoder: Network,
  data: DataSpec,
  *,
  size: int = 227,
  frozen: bool = False,
  layer: str = "",
  channels: int = 128,
  norm: bool = False,
  output: int = 56,
  dropout: float = 0.0,
  threshold: float = 0.5,
) -> Method:
  """One logit for every pixel tells whether it belongs to an object that moves.

  The last map of the encoder goes through a 1x1 convolution, ReLU and a linear layer to `output` x `output`
  logits, which are upsampled bilinearly to the masks. The loss is the mean of the logistic loss over all
  pixels of the batch that are labelled; a batch without any has the loss 0.

  Args:
    encoder: the image network. Of an AlexNet the option `fc` must be ().
    data: must have "mask" uint8[H, W]: 0 background, 255 no label, anything else the object. `ssl-jax prepare
      motion` writes such data.
    size: side of the images in pixels, to which the linear layer ties the network.
    frozen: keeps the encoder as it is, its BatchNorm statistics too, and trains the rest on it.
    layer: the map of the encoder that is used; later layers are not trained. "": the last one.
    channels: of the 1x1 convolution.
    norm: BatchNorm after it.
    output: side of the map of logits.
    dropout: fraction of the inputs of the linear layer that is dropped in training.
    threshold: probability from which on a pixel is predicted to move.
  Metrics: `iou` of the moving pixels and `pixel_accuracy`, both of the labelled pixels of the batch, with the
    network as it is in training.
  Raises: ValueError for data without masks or options out of range; when traced, for images of another size
    or an unknown layer.
  Source: Pathak, Girshick, Dollar, Darrell, Hariharan 2017, section 4, and released code. Whether it averages
    over the pixels of an image or of the batch is open; here it is the batch.
  """
  _check(encoder, data, size, channels, output, dropout, threshold)
  trunk = models.frozen(encoder) if frozen else encoder
  net = models.stack(
    models.last_map(trunk, layer), models.network(heads.MaskMap(channels, output, norm, dropout))
  )
  bound = functools.partial
  segmenter = Segmenter(bound(_predict, net, threshold), size=(size, size), make_task=_make_task)
  abilities = {
    Pyramid: Pyramid(bound(frozen_parts.read_encoder, encoder, pyramid=True)),
    Segmenter: segmenter,
  }
  init = bound(_init, net, size, frozen)
  return Method(init, bound(_loss, net), keep_extra, bound(frozen_parts.read_encoder, encoder), abilities)


def _init(net: Network, size: int, frozen: bool, key, batch: Batch) -> Init:
  height, width = batch["image"].shape[1:3]
  if (height, width) != (size, size):
    raise ValueError(
      f"config.method.size is {size}, but config.augment makes images of {height}x{width} pixels; use the "
      "same size for both"
    )
  weights = net.init(key, batch["image"])
  return Init(*frozen_parts.take_out(weights, lambda path: frozen and path[0] == "encoder"))


def _loss(net: Network, params, model_state, extra, batch: Batch, key):
  mask = batch["mask"]
  weights = frozen_parts.whole(params, model_state)
  logits, state = net.apply(weights, batch["image"], train=True, key=key)
  logits = _upsampled(logits, (mask.shape[1], mask.shape[2]))
  total, count = Mean.of(*losses.pixel_logistic(logits, mask, ignore=IGNORE))
  labelled, moving, found = mask != IGNORE, mask != 0, logits > 0
  metrics = {
    "iou": Mean.of(moving & found, labelled & (moving | found)),
    "pixel_accuracy": Mean.of(moving == found, labelled),
  }
  return total / jnp.maximum(count, 1), Aux({**model_state, **state}, metrics=metrics)


def _predict(net: Network, threshold: float, params, model_state, images):
  """f32[B, H, W, 2]: logits of background and of what moves."""
  logits, _ = net.apply(frozen_parts.whole(params, model_state), images)
  logits = _upsampled(logits, images.shape[1:3])
  least = math.log(threshold / (1 - threshold))
  return jnp.stack([jnp.full_like(logits, least), logits], -1)


def _upsampled(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
  """f32[B, H, W] of f32[B, h, w]."""
  return upsample(logits[..., None], size, align_corners=False)[..., 0]


def _make_task(key: jax.Array, batch: Batch) -> PretextExamples:
  """The labels of the images: white moves, black does not, grey has no label."""
  mask = batch["mask"]
  shade = jnp.where(mask == IGNORE, 0.5, jnp.where(mask == 0, 0.0, 1.0))
  labels = jnp.broadcast_to(shade[..., None], batch["image"].shape)
  targets = jnp.zeros((len(mask), 0), jnp.int32)
  return PretextExamples(labels[:, None], targets, ("labels",))


def _check(
  encoder: Network, data: DataSpec, size: int, channels: int, output: int, dropout: float, threshold: float
) -> None:
  if "mask" not in data.elements:
    raise ValueError(
      "method 'watching_objects_move' needs a mask for every image, but config.host.name delivers only "
      f"{', '.join(data.elements)}; use config.host.name='image_mask'"
    )
  for name, value in (("size", size), ("channels", channels), ("output", output)):
    if value < 1:
      raise ValueError(f"config.method.{name} is {value}; use a positive number")
  if not 0 <= dropout < 1:
    raise ValueError(f"config.method.dropout is {dropout}; use a fraction in [0, 1)")
  if not 0 < threshold < 1:
    raise ValueError(
      f"config.method.threshold is {threshold}; use a probability between 0 and 1, such as 0.5"
    )
  if layers := getattr(encoder.module, "fc", ()):
    raise ValueError(
      f"config.encoder.fc is {layers}, but this method takes a map of the encoder, before its fully "
      "connected layers; use ()"
    )
