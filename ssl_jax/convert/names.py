"""Names and layouts of this library's pytree leaves in PyTorch networks.

The networks are torchvision's ResNets and the transformers of timm and MAE. "Ours" is a leaf of this library,
"theirs" a PyTorch tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_jax.convert.files import Tensors

Turn = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
  """How to convert a PyTorch tensor to our layout (`ours`) and back (`theirs`), bit for bit."""

  ours: Turn
  theirs: Turn


def _same(x: np.ndarray) -> np.ndarray:
  return x


SAME = Layout(_same, _same)
LINEAR = Layout(np.transpose, np.transpose)  # [out, in] <-> [in, out]
KERNEL = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW <-> HWIO


def patch_layout(side: int) -> Layout:
  """Convolution over patches [width, 3, side, side] <-> dense layer on pixels [side * side * 3, width]."""
  return Layout(
    lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x: x.reshape(side, side, 3, -1).transpose(3, 2, 0, 1),
  )


class Tensor(NamedTuple):
  """A PyTorch tensor: its name and layout."""

  name: str
  layout: Layout


NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
SHARED = {
  "conv_stem": "conv1",
  "norm_stem": "bn1",
  "BatchNorm_0": "bn1",
  "conv_shortcut": "downsample.0",
  "norm_shortcut": "downsample.1",
}
BASIC = {**SHARED, "Conv_0": "conv1", "Conv_1": "conv2", "norm_last": "bn2"}
BOTTLENECK = {
  **SHARED,
  "Conv_1": "conv1",
  "Conv_0": "conv2",
  "Conv_2": "conv3",
  "BatchNorm_1": "bn2",
  "norm_last": "bn3",
}  # Conv_0 has the stride
IN_BLOCK = {
  "norm1": "norm1",
  "norm2": "norm2",
  "qkv": "attn.qkv",
  "out": "attn.proj",
  "mlp1": "mlp.fc1",
  "mlp2": "mlp.fc2",
}
TOKENS = {"cls": "cls_token", "positions": "pos_embed"}
HEADS = {"Linear_0": "fc.0", "Linear_1": "fc.2"}  # MoCo v2's two layers
NORMS = {"norm": "norm", "fc_norm": "fc_norm"}
DECODER = {"embed": "decoder_embed", "norm": "decoder_norm", "pixels": "decoder_pred"}


class Form(NamedTuple):
  """The properties of a network that names and layouts depend on."""

  patch: int = 0  # side of a transformer's patches; 0 means a ResNet
  bottleneck: bool = False  # whether a ResNet has bottleneck blocks
  projection: bool = False  # whether the head is SimCLR's, a sequence of dense layer, BatchNorm, ReLU
  detector: bool = False  # whether the network is a detector on a ResNet; see convert/detectors.py
  own: bool = False  # no library has such networks: the paths and layouts of this one


def tensors_of(path: tuple[str, ...], depth: int, form: Form) -> list[Tensor]:
  """The PyTorch tensors of one leaf: one tensor, or one per layer for a leaf that stacks layers.

  Args:
    path: of the leaf, such as ("encoder", "stage1_block1", "Conv_0", "kernel"), without "batch_stats".
    depth: number of stacked layers, if the leaf is a stack.
  Raises: KeyError or AttributeError for a leaf that has no name in PyTorch's networks.
  """
  if form.own:
    return [Tensor("/".join(path), SAME)]
  part, *inner = path
  layer, leaf = inner[-2] if len(inner) > 1 else "", inner[-1]
  weight, dense = "weight" if leaf in ("kernel", "scale") else leaf, LINEAR if leaf == "kernel" else SAME
  if part == "head":
    return [_head(inner, form)]
  if inner[0] == "blocks":
    prefix = "decoder_" if part == "decoder" else ""
    return [Tensor(f"{prefix}blocks.{i}.{IN_BLOCK[layer]}.{weight}", dense) for i in range(depth)]
  if part == "decoder":
    return [Tensor("mask_token", SAME) if leaf == "mask" else Tensor(f"{DECODER[layer]}.{weight}", dense)]
  if not form.patch:
    return [resnet_tensor(inner, form.bottleneck)]
  if leaf in TOKENS:
    return [Tensor(TOKENS[leaf], SAME)]
  if inner[0] == "embed":
    return [Tensor(f"patch_embed.proj.{weight}", patch_layout(form.patch) if leaf == "kernel" else SAME)]
  return [Tensor(f"{NORMS[layer]}.{weight}", SAME)]


def _head(inner: list[str], form: Form) -> Tensor:
  *layers, leaf = inner
  weight, layout = {"kernel": ("weight", LINEAR), "bias": ("bias", SAME)}.get(leaf, (NORM.get(leaf), SAME))
  if form.projection:
    kind, number = layers[0].split("_")
    return Tensor(f"fc.{3 * int(number) + {'Dense': 0, 'BatchNorm': 1}[kind]}.{weight}", layout)
  names = {("Dense_0",): "head" if form.patch else "fc", **{(key, "Dense_0"): HEADS[key] for key in HEADS}}
  return Tensor(f"{names[tuple(layers)]}.{weight}", layout)


def resnet_tensor(inner: list[str], bottleneck: bool) -> Tensor:
  """The PyTorch tensor of a leaf of a ResNet; `inner` is the path without "encoder"."""
  *blocks, layer, leaf = inner
  name = (BOTTLENECK if bottleneck else BASIC)[layer]
  for block in blocks:
    # Without a match this raises AttributeError, which the caller reports.
    found = re.fullmatch(r"stage(\d+)_block(\d+)", block)
    stage, number = map(int, found.groups())  # pyright: ignore[reportOptionalMemberAccess]
    name = f"layer{stage}.{number - 1}.{name}"
  return Tensor(f"{name}.weight", KERNEL) if leaf == "kernel" else Tensor(f"{name}.{NORM[leaf]}", SAME)


def into(tensors: list[Tensor], found: Tensors, *, stacked: bool) -> np.ndarray:
  """Our leaf from their tensors. Raises: KeyError for a missing tensor, ValueError for a wrong rank."""
  parts = [tensor.layout.ours(found[tensor.name]) for tensor in tensors]
  return np.stack(parts) if stacked else parts[0]


def out_of(tensors: list[Tensor], leaf: np.ndarray, *, stacked: bool) -> Tensors:
  """Their tensors by name, from our leaf."""
  return {
    tensor.name: tensor.layout.theirs(part) for tensor, part in zip(tensors, leaf if stacked else leaf[None])
  }
