"""The head of a region proposal network.

Source: Ren et al. 2015, "Faster R-CNN"; Lin et al. 2017 (FPN), section 4.1: one head for all levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.fcn import PixelClassifier
from ssl_jax.models.resnet import conv_layer


class Anchored(NamedTuple):
  """What an RPN says of every anchor, level by level, in the order of `detect.anchors.pyramid_anchors`."""

  logits: tuple[jax.Array, ...]  # f32[B, h_l * w_l * A], of objectness
  deltas: tuple[jax.Array, ...]  # f32[B, h_l * w_l * A, 4]


class RPNHead(nn.Module):
  """A 3x3 convolution with ReLU and two 1x1 convolutions, shared over the maps [B, h, w, C] -> `Anchored`.

  Args:
    anchors: A, their number in a cell.
    dtype: of activations; parameters and outputs are float32.
  """

  anchors: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> Anchored:
    start: dict[str, Any] = dict(kernel_init=nn.initializers.normal(0.01), dtype=self.dtype, name="conv")
    conv = conv_layer(maps[0].shape[-1], 3, bias=True, **start)
    objectness = PixelClassifier(self.anchors, train, name="objectness")
    deltas = PixelClassifier(4 * self.anchors, train, name="deltas")
    features = [nn.relu(conv(x.astype(self.dtype))) for x in maps]
    return Anchored(
      tuple(objectness(x).reshape(x.shape[0], -1) for x in features),
      tuple(deltas(x).reshape(x.shape[0], -1, 4) for x in features),
    )
