"""Heads on the features of RoIs: classes and boxes, and masks.

Source: Girshick 2015, "Fast R-CNN"; He et al. 2017, "Mask R-CNN", section 3; initial values as in detectron2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.fcn import PixelClassifier
from ssl_jax.models.fpn import XAVIER
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.resnet import INITS, conv_layer
from ssl_jax.models.upernet import Double


class Boxes(NamedTuple):
  """What a box head says of each RoI."""

  logits: jax.Array  # f32[R, K + 1]; the last class is the background
  deltas: jax.Array  # f32[R, K, 4] relative to the RoI; [R, 1, 4] if all classes share a box


class BoxHead(nn.Module):
  """Features of RoIs [R, P, P, C] -> `Boxes`.

  Args:
    classes: K, without the background.
    hidden: width of two dense layers with ReLU (FPN); 0: the average of the pixels takes their place (C4).
    agnostic: one box for all classes instead of one for each.
    dtype: of activations; parameters and outputs are float32.
  """

  classes: int
  hidden: int = 1024
  agnostic: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> Boxes:
    if self.hidden:
      x = x.astype(self.dtype).reshape(x.shape[0], -1)
      for name in ("dense1", "dense2"):
        x = nn.relu(nn.Dense(self.hidden, kernel_init=XAVIER, dtype=self.dtype, name=name)(x))
      x = x.astype(jnp.float32)
    else:
      x = x.astype(jnp.float32).mean((1, 2))

    def predict(name: str, width: int, deviation: float) -> jax.Array:
      return nn.Dense(width, kernel_init=nn.initializers.normal(deviation), name=name)(x)

    boxes = predict("deltas", 4 * (1 if self.agnostic else self.classes), 0.001)
    return Boxes(predict("classes", self.classes + 1, 0.01), boxes.reshape(x.shape[0], -1, 4))


class MaskHead(nn.Module):
  """Features of RoIs [R, P, P, C] -> logits of masks f32[R, 2P, 2P, K].

  Args:
    classes: K.
    convolutions: number of 3x3 convolutions with ReLU: 4 on a pyramid, 0 on res5 (C4).
    channels: of them and of the transposed convolution that doubles the resolution.
    dtype: of activations; parameters and logits are float32.
  """

  classes: int
  convolutions: int = 4
  channels: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = x.astype(self.dtype)
    for i in range(self.convolutions):
      options: dict[str, Any] = dict(kernel_init=INITS["fan_out"], dtype=self.dtype, name=f"conv{i + 1}")
      x = nn.relu(conv_layer(self.channels, 3, bias=True, **options)(x))
    deviation = (2 / (4 * x.shape[-1])) ** 0.5  # Kaiming's with PyTorch's fan of a transposed convolution
    x = nn.relu(Double(self.dtype, self.channels, deviation, name="double")(x))
    return PixelClassifier(self.classes, train, deviation=0.001, name="masks")(x)


class ExtraNorm(nn.Module):
  """The BatchNorm that MoCo's C4 detectors have after res5: f32[R, h, w, C], without ReLU.

  Source: He et al. 2020, "Momentum Contrast", section 4.2.
  """

  groups: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    return BatchNorm(train, self.groups, name="norm")(x)
