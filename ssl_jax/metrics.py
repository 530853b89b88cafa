"""Means that merge by addition, so that a masked batch, a sharded one and a sum over batches agree."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
  """A running mean. `a + b` of two means is the mean over both sets of examples."""

  total: jax.Array  # f32[]
  count: jax.Array  # f32[]

  @classmethod
  def of(cls, values: jax.Array, mask: jax.Array | None = None) -> Mean:
    """Mean over all elements of `values` for which `mask` (same shape, bool; default: all) holds."""
    values = values.astype(jnp.float32)
    if mask is None:
      return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
    return cls(jnp.where(mask, values, 0).sum(), mask.sum().astype(jnp.float32))

  def __add__(self, other: Mean) -> Mean:  # type: ignore[override]
    return Mean(self.total + other.total, self.count + other.count)

  def value(self) -> jax.Array:
    """f32[]: total / count; nan when nothing was counted."""
    return self.total / self.count


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, *, k: int = 1) -> Mean:
  """Share of examples whose label is among the k largest logits.

  Of equal logits the lower class comes first, as in argmax: constant logits are right for one class only.

  Args:
    logits: f32[B, C]; labels: i32[B]; mask: bool[B], examples that count.
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  lower = jnp.arange(logits.shape[-1])[None] < labels[:, None]
  return Mean.of(((logits > own) | ((logits == own) & lower)).sum(-1) < k, mask)
