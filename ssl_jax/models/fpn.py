"""A feature pyramid on the maps of a ResNet, for detection.

Source: Lin et al. 2017, "Feature Pyramid Networks for Object Detection".
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.resnet import conv_layer

XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")  # Caffe2's, as in detectron2


class FPN(nn.Module):
  """Maps of strides 4, 8, 16, 32 -> the maps p2 to p6 of strides 4 to 64, [B, h, w, channels] of `dtype`.

  Each map passes a lateral 1x1 convolution, the coarser sum is added, doubled by repeating its pixels, and a
  3x3 convolution follows; no ReLU. p6 is every other pixel of p5. A coarser sum that is larger than the map
  after doubling, because a side of the map is odd, is cut.

  Args:
    channels: of all maps of the pyramid.
    norm: BatchNorm after each convolution, which then has no bias (MoCo's COCO protocol).
    groups: of the BatchNorm.
    dtype: of activations; parameters and statistics are float32.
  """

  channels: int = 256
  norm: bool = False
  groups: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> tuple[jax.Array, ...]:
    def conv(name: str, kernel: int, x: jax.Array) -> jax.Array:
      options: dict[str, Any] = dict(kernel_init=XAVIER, dtype=self.dtype, name=name)
      x = conv_layer(self.channels, kernel, bias=not self.norm, **options)(x)
      return BatchNorm(train, self.groups, dtype=self.dtype, name=f"norm_{name}")(x) if self.norm else x

    merged = []  # from coarse to fine
    for i, x in reversed(list(enumerate(maps))):
      lateral = conv(f"lateral{i + 2}", 1, x.astype(self.dtype))
      if merged:
        lateral += double(merged[-1])[:, : lateral.shape[1], : lateral.shape[2]]
      merged.append(lateral)
    found = [conv(f"output{i + 2}", 3, x) for i, x in enumerate(reversed(merged))]
    return (*found, found[-1][:, ::2, ::2])


def double(x: jax.Array) -> jax.Array:
  """[B, h, w, C] -> [B, 2h, 2w, C], each pixel repeated."""
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
