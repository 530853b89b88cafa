"""Pre-activation ResNets for small images: the ResNet-26 of test-time training, and Wide ResNets.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks"; Sun et al. 2020 (released code);
  Zagoruyko & Komodakis 2016.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.models.normalize import Normalization, normalize
from ssl_jax.models.resnet import INITS, conv_layer, norm_layer


class PreBlock(nn.Module):
  """x + conv(relu(norm(conv(relu(norm(x)))))). Where the shape changes, `shortcut` tells how x is adapted."""

  channels: int
  stride: int
  shortcut: str
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = nn.relu(self.norm(name="norm1")(x))
    if x.shape[-1] != self.channels or self.stride > 1:
      if self.shortcut == "conv":
        x = self.conv(self.channels, 1, self.stride, name="conv_shortcut")(y)
      else:  # pools the input of the block, not the normalised input
        x = einops.reduce(x, "b (h s) (w t) c -> b h w c", "mean", s=self.stride, t=self.stride)
        x = jnp.pad(x, ((0, 0),) * 3 + ((0, self.channels - x.shape[-1]),))
    y = self.conv(self.channels, 3, self.stride, name="conv1")(y)
    return x + self.conv(self.channels, 3, name="conv2")(nn.relu(self.norm(name="norm2")(y)))


class PreResNet(nn.Module):
  """f32[B, H, W, 3] in [0, 1] -> f32[B, 4 width widen], the average of the last map over its pixels.

  The network has three stages, at full, half and quarter resolution, and 6 blocks + 2 layers. The last map
  includes the final norm and ReLU. `pyramid`, `until` and `since` work as in `ResNet`.

  Args:
    blocks: number of blocks in each stage.
    width: channels of the stem.
    widen: the first stage has width * widen channels; they double in each of the other two stages.
    stem: "cifar" keeps the resolution; "small" halves it first, for training on a CPU.
    shortcut: where the shape changes: "pool" averages and appends channels of zeros; "conv": a 1x1
      convolution.
    norm, batch_groups, channel_groups, normalize, dtype: as in `ResNet`.
  """

  blocks: int
  width: int = 16
  widen: int = 1
  stem: Literal["cifar", "small"] = "cifar"
  shortcut: Literal["pool", "conv"] = "pool"
  norm: Literal["batch", "group"] = "group"
  batch_groups: int = 1
  channel_groups: int = 8
  normalize: Normalization = "signed"
  dtype: Literal["float32", "bfloat16"] = "float32"

  def layers(self) -> tuple[str, ...]:
    """Names of the feature maps, from the finest to the coarsest."""
    return ("stem", "stage1", "stage2", "stage3")

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool, pyramid: bool = False, since: str = "", until: str = ""
  ):
    names = self.layers()
    done, last = names.index(since) + 1 if since else 0, names.index(until or names[-1])
    dtype = jnp.dtype(self.dtype)
    conv = functools.partial(conv_layer, kernel_init=INITS["fan_out"], dtype=dtype)
    norm = norm_layer(self, train, dtype)
    x, maps = images.astype(dtype), {}
    if not done:
      x = normalize(images, self.normalize).astype(dtype)
      maps["stem"] = x = conv(self.width, 3, 2 if self.stem == "small" else 1, name="conv_stem")(x)
    for stage, name in enumerate(names[1:]):
      if not done <= stage + 1 <= last:
        continue
      for block in range(self.blocks):
        x = PreBlock(
          self.width * self.widen * 2**stage,
          1 if block or not stage else 2,
          self.shortcut,
          conv,
          norm,
          name=f"{name}_block{block + 1}",
        )(x)
      if stage == 2:
        x = nn.relu(norm(name="norm_last")(x))
      maps[name] = x
    if pyramid:
      return {k: v.astype(jnp.float32) for k, v in maps.items()}
    return x.astype(jnp.float32) if until else x.astype(jnp.float32).mean((1, 2))


ENCODERS = {
  "preresnet14": functools.partial(PreResNet, blocks=2),
  "preresnet26": functools.partial(PreResNet, blocks=4),
  "wrn40_2": functools.partial(PreResNet, blocks=6, widen=2, shortcut="conv", norm="batch"),
}
