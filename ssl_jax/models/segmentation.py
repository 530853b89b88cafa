"""Networks for semantic segmentation: an encoder and a head that classifies every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import Weights
from ssl_jax.models import Network, network, preact, resnet, stack, vit
from ssl_jax.models.fcn import FCNHead, LinearHead, Segmentation
from ssl_jax.models.resize import upsample
from ssl_jax.models.upernet import UPerHead


class Head(NamedTuple):
  """A kind of head."""

  # (encoder, classes, *, options) -> (the encoder as images -> the maps that the head takes, the head)
  make: Callable[..., tuple[Network, nn.Module]]
  align_corners: bool  # how its logits are upsampled to the image, see `upsample`


def segmenter(encoder: Network, classes: int, head: str, **options) -> Network:
  """An encoder with a head for semantic segmentation: images f32[B, H, W, 3] -> Segmentation.

  Its parameters and its state are dicts with the keys "encoder" and "head". The logits are float32, at the
  resolution of the feature maps: a method upsamples them to that of the labels with `upsample` and the
  `align_corners` of HEADS[head]. The logits of an auxiliary head are computed only with `train=True`. The
  head's activations have the dtype of the encoder's. In training, `key` is the source of drop path and
  dropout.

  Args:
    classes: number of classes.
    head: a key of HEADS.
    options: keyword arguments of the function of that name.
  Raises: ValueError for an unknown head or option, or an encoder that the head does not fit.
  """
  return stack(*reader_and_head(encoder, classes, head, **options))


def reader_and_head(encoder: Network, classes: int, head: str, **options) -> tuple[Network, Network]:
  """The two networks of a segmenter: images -> the maps that the head takes, and these -> Segmentation.

  The arguments and errors are those of `segmenter`.
  """
  if head not in HEADS:
    raise ValueError(f"config.method.head is {head!r}{nearest(head, HEADS)}")
  if classes < 2:
    raise ValueError(f"config.method.head {head!r} needs labels of two classes or more, not of {classes}")
  reader, module = call_checked(HEADS[head].make, options, "config.method", encoder, classes)
  return reader, network(module)


def fcn(encoder: Network, classes: int, *, channels: int = 256, dilation: int = 6) -> tuple[Network, FCNHead]:
  """MoCo's head: two 3x3 convolutions with dilation, BatchNorm and ReLU on the last map, and a 1x1
  convolution.

  The protocol's ResNet-50 has output_stride=16 and dilate="all".

  Source: He et al. 2020, "Momentum Contrast", appendix; the interpolation follows a re-implementation.
  """
  _check_options(least=1, channels=channels, dilation=dilation)
  head = FCNHead(classes, channels, dilation=dilation, dtype=_dtype(encoder))
  return _reader(encoder, _layers(encoder)[-1:]), head


def fcn_d8(
  encoder: Network, classes: int, *, channels: int = 512, dropout: float = 0.1, auxiliary_channels: int = 256
) -> tuple[Network, FCNHead]:
  """The FCN of MMSegmentation: two 3x3 convolutions, one on their concatenation with the input, dropout.

  An auxiliary FCN of one convolution reads the last map but one. The protocol's ResNet-50 has
  output_stride=8.

  Args:
    auxiliary_channels: 0: no auxiliary head.
  Raises: ValueError if the encoder is not a ResNet.
  """
  if not isinstance(encoder.module, (resnet.ResNet, preact.PreResNet)):
    raise ValueError(
      "config.method.head 'fcn_d8' reads the last two stages of a ResNet; use "
      "config.encoder.name='resnet50', or config.method.head='upernet' for a vision transformer"
    )
  _check_options(least=1, channels=channels, dropout=dropout)
  _check_options(auxiliary_channels=auxiliary_channels)
  head = FCNHead(classes, channels, 2, 1, True, dropout, auxiliary_channels, _dtype(encoder))
  return _reader(encoder, _layers(encoder)[-2:]), head


def linear(encoder: Network, classes: int) -> tuple[Network, LinearHead]:
  """BatchNorm and a 1x1 convolution on the last map; a vision transformer's last norm comes before them.

  Raises: ValueError for a vision transformer without a norm of its patch tokens.
  """
  normed: dict[str, Any] = {}
  if isinstance(encoder.module, vit.ViT):
    if encoder.module.pool == "fc_norm":
      raise ValueError(
        "config.method.head 'linear' reads patch tokens after the last norm, which an encoder with "
        "config.encoder.pool 'fc_norm' lacks; use config.encoder.pool='cls'"
      )
    normed = dict(normed=True)
  return _reader(encoder, _layers(encoder)[-1:], **normed), LinearHead(classes, _dtype(encoder))


def upernet(
  encoder: Network,
  classes: int,
  *,
  channels: int = 0,
  dropout: float = 0.1,
  auxiliary_channels: int = 256,
  taps: tuple[int, ...] = (),
) -> tuple[Network, UPerHead]:
  """UPerNet on four blocks of a vision transformer, see `UPerHead`.

  Args:
    taps: the four blocks, counted from one; (): after 1/3, 1/2, 2/3 and all of them, as BEiT: 4, 6, 8, 12 of
      ViT-B and 8, 12, 16, 24 of ViT-L.
  Raises: ValueError if the encoder is not a vision transformer of at least four blocks, or has no such taps.
  """
  if not isinstance(encoder.module, vit.ViT):
    raise ValueError(
      "config.method.head 'upernet' reads four blocks of a vision transformer; use "
      "config.encoder.name='vit_base', or config.method.head='fcn' for a ResNet"
    )
  depth = encoder.module.depth
  if depth < 4:
    raise ValueError(
      f"config.encoder.depth is {depth}, but config.method.head 'upernet' reads four blocks; use 4 or more, "
      "or config.method.head='linear'"
    )
  spread = (depth // 3, depth // 2, max(2 * depth // 3, depth // 2 + 1), depth)
  taps = taps or spread
  if len(taps) != 4 or list(taps) != sorted({*taps} & {*range(1, depth + 1)}):
    raise ValueError(
      f"config.method.taps is {taps}; use four increasing numbers from 1 to config.encoder.depth {depth}, "
      f"such as {spread}"
    )
  _check_options(channels=channels, auxiliary_channels=auxiliary_channels, dropout=dropout)
  head = UPerHead(classes, channels, dropout, auxiliary_channels, _dtype(encoder))
  return _reader(encoder, tuple(_layers(encoder)[tap - 1] for tap in taps)), head


HEADS = {
  "fcn": Head(fcn, True),
  "fcn_d8": Head(fcn_d8, False),
  "linear": Head(linear, False),
  "upernet": Head(upernet, False),
}


def _reader(encoder: Network, layers: tuple[str, ...], **call) -> Network:
  """The encoder as images -> the maps of these layers.

  They are a tuple: jax sorts the names of a dict, and "block12" would come before "block4".
  """

  def apply(weights: Weights, images: jax.Array, **options):
    maps, model_state = encoder.apply(weights, images, pyramid=True, **call, **options)
    return tuple(maps[layer] for layer in layers), model_state

  return Network(encoder.init, apply, encoder.module)


def _layers(encoder: Network) -> tuple[str, ...]:
  """The names of the encoder's maps, from shallow to deep."""
  module: Any = encoder.module
  if isinstance(module, vit.ViT):
    return tuple(f"block{i + 1}" for i in range(module.depth))
  return module.layers()


def _dtype(encoder: Network):
  return jnp.dtype(getattr(encoder.module, "dtype", "float32"))


def _check_options(*, least: int = 0, dropout: float = 0.0, **sizes: int) -> None:
  for name, value in sizes.items():
    if value < least:
      raise ValueError(f"config.method.{name} is {value}; use {least} or more")
  if not 0 <= dropout < 1:
    raise ValueError(f"config.method.dropout is {dropout}; use a rate in [0, 1), such as 0.1")


__all__ = ["HEADS", "Head", "Segmentation", "fcn", "fcn_d8", "linear", "segmenter", "upernet", "upsample"]
