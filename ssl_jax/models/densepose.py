"""The dense head of DensePose: the part of the body and the place on its surface for each pixel of a person.

It reads the feature pyramid of a detector and is passed to `detection.detector` as a further head.

Source: Güler et al. 2018, "DensePose"; layers as in detectron2's project DensePose.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.core import Key, Weights
from ssl_jax.data.body_parts import PARTS
from ssl_jax.detect import densepose_losses
from ssl_jax.detect.densepose_losses import DenseLogits, DenseTargets
from ssl_jax.detect.losses import Truth
from ssl_jax.detect.proposals import Rois
from ssl_jax.detect.roi_align import roi_align
from ssl_jax.models import Network, network
from ssl_jax.models.detection import RoiHead
from ssl_jax.models.detection_bodies import Maps, merge
from ssl_jax.models.resize import upsample
from ssl_jax.models.resnet import INITS, conv_layer

STRIDE = 4  # of the map of the decoder, as that of p2
ROI = 28  # pixels of a side of the head's input; the output has four times as many
COARSE = (2, 15)  # outputs of the coarse segmentation: a person or not, or 14 segments and the background


class DensePrediction(NamedTuple):
  """What the head says of the pixels of boxes, whose sides are divided into S = 112 pixels each."""

  parts: jax.Array  # uint8[B, N, S, S], 1 to 24; 0 for the background
  uv: jax.Array  # f32[B, N, S, S, 2], (U, V) in [0, 1] of the part; 0 for the background


class Decoder(nn.Module):
  """The maps p2 to p5 [B, h_l, w_l, C] -> one map [B, h_2, w_2, channels] of `dtype`.

  Each level is brought to the resolution of p2 by stages of a 3x3 convolution, ReLU and bilinear upsampling
  to the next finer level; p2 itself passes one convolution. The sum passes a 1x1 convolution.

  Args:
    channels: of all layers.
    dtype: of activations; parameters are float32.
  Source: Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", section 3.1; without norms.
  """

  channels: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: Maps, *, train: bool) -> jax.Array:
    options: dict[str, Any] = dict(bias=True, kernel_init=INITS["fan_out"], dtype=self.dtype)
    found = []
    for level, x in enumerate(maps):
      x = x.astype(self.dtype)
      for stage in range(max(level, 1)):
        name = f"level{level + 2}_conv{stage + 1}"
        x = nn.relu(conv_layer(self.channels, 3, name=name, **options)(x))
        if level:
          height, width = maps[level - stage - 1].shape[1:3]
          x = upsample(x, (height, width), align_corners=False)
      found.append(x)
    return conv_layer(self.channels, 1, name="merge", **options)(functools.reduce(jnp.add, found))


class TransposedConv(nn.Module):
  """A transposed 4x4 convolution with stride 2: [B, h, w, C] -> [B, 2h, 2w, channels] of `dtype`.

  PyTorch's with padding 1, whose kernel [4, 4, C, channels] has the same orientation. It is computed as a 3x3
  convolution to the four outputs of every pixel: the backward pass of a convolution of dilated input is
  seven times slower on CPU, and what is multiplied by zeros adds 4% to the work of the published head.
  """

  channels: int
  deviation: float  # of the initial kernel
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, before = x.shape
    start = nn.initializers.normal(self.deviation)
    kernel = self.param("kernel", start, (4, 4, before, self.channels), jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32).astype(self.dtype)
    # Output 2i + a is the sum over t of x[i + t - 1] times the kernel at a + 3 - 2t, where there is one.
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))[::-1, ::-1]
    phases = padded.reshape(3, 2, 3, 2, before, self.channels)[:, ::-1, :, ::-1]  # [t, a, t', a', ...]
    taps = phases.transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, before, 4 * self.channels)
    found = jax.lax.conv_general_dilated(
      x.astype(self.dtype), taps, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = found.reshape(batch, height, width, 2, 2, self.channels).transpose(0, 1, 3, 2, 4, 5)
    return found.reshape(batch, 2 * height, 2 * width, -1) + bias.reshape(1, 1, 1, -1)


class DenseHead(nn.Module):
  """Features of RoIs [R, P, P, C] -> `DenseLogits` of R RoIs with 4P pixels a side.

  Convolutions with ReLU, then for each of the four outputs a transposed convolution of its own, 4x4 with
  stride 2, and bilinear upsampling by 2.

  Args:
    coarse: outputs of the coarse segmentation, see COARSE.
    channels: of the convolutions.
    convolutions: their number.
    dtype: of activations; parameters and outputs are float32.
  """

  coarse: int = 2
  channels: int = 512
  convolutions: int = 8
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> DenseLogits:
    options: dict[str, Any] = dict(kernel_init=INITS["fan_out"], dtype=self.dtype)
    x = x.astype(self.dtype)
    for i in range(self.convolutions):
      x = nn.relu(conv_layer(self.channels, 3, bias=True, name=f"conv{i + 1}", **options)(x))
    # Almost zero, as the last layer of a mask head: the losses begin at those of an even guess. The original
    # uses Kaiming's, with which the loss of the parts begins well above ln 25.
    deviation = 0.001
    size = 4 * x.shape[1], 4 * x.shape[2]

    def output(name: str, width: int) -> jax.Array:
      y = TransposedConv(width, deviation, self.dtype, name=name)(x)
      return upsample(y.astype(jnp.float32), size, align_corners=False)

    parts = PARTS + 1
    return DenseLogits(
      output("coarse", self.coarse), output("fine", parts), output("u", parts), output("v", parts)
    )


class DenseParts(NamedTuple):
  """The networks and options of the head."""

  decoder: Network
  head: Network
  channels: int
  aligned: bool
  rois: int
  images_summed: int


def dense_head(
  *,
  coarse: int = 2,
  channels: int = 256,
  width: int = 512,
  convolutions: int = 8,
  aligned: bool = True,
  rois: int = 64,
  images_summed: int = 2,
  dtype: Any = jnp.float32,
) -> RoiHead:
  """The decoder and head of DensePose, for a detector of kind "fpn".

  In training it needs the entries of `DenseTargets` among the targets. Its losses "coarse" (x 5), "fine" and
  "uv" (x 0.01), see `densepose_losses.dense_terms`, are computed on foreground RoIs that overlap by at least
  0.7 with an object that has annotated points. A prediction is a `DensePrediction`.

  Args:
    coarse: outputs of the coarse segmentation: 2 or 15.
    channels: of the decoder.
    width: channels of the head's convolutions.
    convolutions: their number.
    aligned: False is the legacy form of imported weights, in RoIAlign and where points lie on the output.
    rois: the most RoIs of an image on which the losses are computed: the first of the sample, whose order is
      random. The original takes all, up to 128, a number that depends on data.
    images_summed: the loss of U and V is a sum over the 2 images of a GPU in the original, averaged over its
      8 GPUs: here the sum over the batch times `images_summed` / B.
    dtype: of activations.
  Raises: ValueError for an option that is out of range.
  """
  if coarse not in COARSE:
    raise ValueError(f"config.method.coarse is {coarse}; use 2 (person or not) or 15 (14 segments)")
  for name, value in (("dense_rois", rois), ("images_summed", images_summed), ("dense_width", width)):
    if value < 1:
      raise ValueError(f"config.method.{name} is {value}; use a positive number")
  decoder, head = network(Decoder(channels, dtype)), network(DenseHead(coarse, width, convolutions, dtype))
  parts = DenseParts(decoder, head, channels, aligned, rois, images_summed)
  bound = functools.partial
  return RoiHead(bound(_init, parts), bound(_loss, parts), bound(_predict, parts))


def _init(parts: DenseParts, key: Key, maps: Maps) -> Weights:
  keys = jax.random.split(key)
  zeros = tuple(jnp.zeros(level.shape, level.dtype) for level in maps[:4])
  found = merge(Weights({}, {}), "decoder", parts.decoder.init(keys[0], zeros))
  crops = jnp.zeros((1, ROI, ROI, parts.channels))
  return merge(found, "dense", parts.head.init(keys[1], crops))


def _logits(parts: DenseParts, weights: Weights, maps: Maps, boxes: jax.Array, *, train: bool) -> DenseLogits:
  """The outputs for boxes f32[B, S, 4], with the leading axes [B, S]."""
  own = lambda name: Weights(weights.params[name], weights.model_state[name])
  merged, _ = parts.decoder.apply(own("decoder"), maps[:4], train=train)
  crop = functools.partial(roi_align, stride=STRIDE, size=ROI, samples=2, aligned=parts.aligned)
  crops = jax.vmap(lambda level, rows: crop(level, rows))(merged, boxes)
  found, _ = parts.head.apply(own("dense"), crops.reshape(-1, *crops.shape[2:]), train=train)
  return jax.tree.map(lambda leaf: leaf.reshape(*boxes.shape[:2], *leaf.shape[1:]), found)


def _loss(parts: DenseParts, weights: Weights, maps: Maps, rois: Rois, truth: Truth, targets):
  """{name: f32[]} of `rois` and `truth` with a leading axis B."""
  dense = DenseTargets(*(targets[name] for name in densepose_losses.NAMES))
  select = functools.partial(densepose_losses.select_rois, count=parts.rois)
  chosen = jax.vmap(select)(rois, truth, dense.valid.any(-1))
  logits = _logits(parts, weights, maps, chosen.boxes, train=True)
  terms = jax.vmap(functools.partial(densepose_losses.dense_terms, aligned=parts.aligned))
  return densepose_losses.dense_losses(
    terms(logits, chosen, truth.boxes, dense), images_summed=parts.images_summed
  )


def _predict(parts: DenseParts, weights: Weights, maps: Maps, boxes: jax.Array) -> DensePrediction:
  """Of boxes f32[B, N, 4]."""
  return read_out(_logits(parts, weights, maps, boxes, train=False))


def read_out(logits: DenseLogits) -> DensePrediction:
  """The most likely part of each pixel where the coarse segmentation sees a person, and its U and V.

  U and V are clipped to [0, 1].

  Args:
    logits: with any leading axes.
  """
  body = jnp.argmax(logits.coarse, -1) > 0
  part = jnp.where(body, jnp.argmax(logits.fine, -1), 0)
  own = lambda values: jnp.take_along_axis(values, part[..., None], axis=-1)
  uv = jnp.concatenate([own(logits.u), own(logits.v)], -1).clip(0, 1)
  return DensePrediction(part.astype(jnp.uint8), jnp.where((part > 0)[..., None], uv, 0.0))
