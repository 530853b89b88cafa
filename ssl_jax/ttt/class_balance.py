"""A guard against collapse: a network that finds another number of classes in a frame than the trained one
becomes the trained one again.

Source: Wang et al. 2023, "Test-time training on video streams", baselines (class balance).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.core import PyTree


def guard(
  balance: float, logits: jax.Array, frozen: jax.Array, size: jax.Array, trainable: PyTree, first: PyTree
) -> tuple[PyTree, jax.Array]:
  """Resets the parameters if the number of classes in a frame differs too much from the trained network's.

  Args:
    balance: the largest difference, as a fraction of the trained network's number.
    logits, frozen: f32[H, W, C], of the adapted and of the trained network for one frame.
    size: i32[2], (height, width) of the part of the frame that is not padding.
    trainable, first: the adapted and the trained values of the parameters that adapt.
  Returns: (the parameters for the next frame, bool[]: they were reset).
  """
  adapted, trained = (count_classes(found, size).astype(jnp.float32) for found in (logits, frozen))
  reset = jnp.abs(adapted - trained) > balance * trained
  return jax.tree.map(lambda new, old: jnp.where(reset, old, new), trainable, first), reset


def count_classes(logits: jax.Array, size: jax.Array) -> jax.Array:
  """i32[]: the number of classes that are the largest logit of a pixel of the frame; arguments of `guard`."""
  rows, columns = (jnp.arange(side) < bound for side, bound in zip(logits.shape[:2], size))
  inside = rows[:, None] & columns[None]
  found = logits.argmax(-1)[..., None] == jnp.arange(logits.shape[-1])[None, None]
  return (found & inside[..., None]).any((0, 1)).sum()
