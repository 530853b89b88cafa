"""Means and confusion matrices that are merged by addition, so that masked batches, sharded batches and sums
over batches agree.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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


def confusion_matrix(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int, *, ignore: int | None = None
) -> np.ndarray:
  """i64[C, C]: entry (i, j) counts the images or pixels of class i that were classified as class j.

  Args:
    labels, predictions: integers of the same shape, in [0, C).
    ignore: a label that is not counted, whatever the prediction there; 255 in masks.
  Raises: ValueError for shapes that differ, and for labels or predictions out of range.
  """
  if labels.shape != predictions.shape:
    raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
  if ignore is not None:
    counted = labels != ignore
    labels, predictions = labels[counted], predictions[counted]
  for name, found in (("label", labels), ("prediction", predictions)):
    if found.size and not 0 <= (extreme := found.min() if found.min() < 0 else found.max()) < num_classes:
      raise ValueError(
        f"there is the {name} {extreme}, but only {num_classes} classes, 0 to {num_classes - 1}; check "
        "the number of classes, and which value the data give to pixels without a class"
      )
  cells = labels.ravel().astype(np.int64) * num_classes + predictions.ravel()
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def standard_error(scores: np.ndarray, groups: np.ndarray) -> float:
  """The standard error of the mean of scores [N] whose rows are not independent within a group i32[N].

  Returns: NaN if there is only one group.
  Source: the cluster-robust variance of a mean, with the factor G / (G - 1) for G groups.
  """
  scores = np.asarray(scores, np.float64)
  _, places = np.unique(groups, return_inverse=True)
  totals = np.bincount(places, scores - scores.mean())
  count = len(totals)
  return float(np.sqrt(count / (count - 1) * np.square(totals).sum()) / len(scores)) if count > 1 else np.nan
