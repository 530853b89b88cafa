"""Means that are merged by addition, so that masked batches, sharded batches and sums over batches agree."""

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
    """total / count, f32[]; nan if nothing was counted."""
    return self.total / self.count


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, *, k: int = 1) -> Mean:
  """The fraction of examples whose label is among the k largest logits.

  Equal logits are ranked by class index, the lowest first, as in argmax; so constant logits are correct for
  only one class. Logits that are not a number are wrong.

  Args:
    logits: f32[B, C].
    labels: i32[B].
    mask: bool[B], the examples that count; default: all.
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  lower = jnp.arange(logits.shape[-1])[None] < labels[:, None]
  before = (logits > own) | ((logits == own) & lower)
  return Mean.of((before.sum(-1) < k) & ~jnp.isnan(logits).any(-1), mask)
