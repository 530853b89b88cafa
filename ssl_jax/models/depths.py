"""The depth of each parameter, counted from the input, for learning rates that decay with depth."""

from __future__ import annotations

import re

import jax
import numpy as np

from ssl_jax.core import PyTree

FIRST = ("embed", "cls", "positions", "conv_stem", "norm_stem")
# A transformer's tables of relative positions; like its blocks, they have one entry per block.
RELATIVE = ("relative_rows", "relative_columns")


def is_stack(path: tuple) -> bool:
  """Whether the leaf at this pytree path holds the layers of a transformer along its first axis, see
  `vit.Blocks`.
  """
  return any(getattr(key, "key", "") in ("blocks", *RELATIVE) for key in path)


def depths(params: PyTree) -> tuple[PyTree, int]:
  """The depth of each parameter of `stack(encoder, head)`.

  The embedding or stem has depth 0, the blocks count from 1, and everything after the last block (norms,
  head) has the next depth. ViT-B has 12 blocks, so its head has depth 13.

  Returns: (a pytree like `params`, the depth of the head). A leaf that stacks the blocks has one depth per
    block, i32[blocks, 1, ...]; any other leaf has i32[].
  Raises: ValueError for parameters without an encoder.
  Source: He et al. 2022, released code (lr_decay.py), after BEiT.
  """
  if "encoder" not in params:
    raise ValueError(
      f"config.optimizer.layer_decay needs a method with an encoder and a head, not {sorted(params)}; use 1.0"
    )
  encoder = params["encoder"]
  if "blocks" in encoder:
    order, count = {}, jax.tree.leaves(encoder["blocks"])[0].shape[0]
  else:
    names = sorted(
      (name for name in encoder if re.fullmatch(r"stage\d+_block\d+", name)),
      key=lambda name: [int(n) for n in re.findall(r"\d+", name)],
    )
    order, count = {name: i + 1 for i, name in enumerate(names)}, len(names)

  def depth(path, leaf):
    names = [key.key for key in path]
    if names[0] != "encoder":
      return np.int32(count + 1)
    if is_stack(path):
      return np.arange(1, count + 1, dtype=np.int32).reshape(-1, *[1] * (leaf.ndim - 1))
    return np.int32(0 if names[1] in FIRST else order.get(names[1], count + 1))

  return jax.tree_util.tree_map_with_path(depth, params), count + 1
