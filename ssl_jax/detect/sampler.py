"""A random subsample of fixed size with a bounded number of positives, without dynamic shapes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.core import Key
from ssl_jax.detect.matcher import NEGATIVE, POSITIVE


class Sample(NamedTuple):
  """Rows of the population: first the positives, then the negatives, then rows that are not valid."""

  index: jax.Array  # i32[S]; 0 where not valid; no valid row occurs twice
  positive: jax.Array  # bool[S]
  valid: jax.Array  # bool[S]


@jax.named_scope("random_sample")
def random_sample(key: Key, labels: jax.Array, *, count: int, most_positives: int) -> Sample:
  """Draws up to `most_positives` positives uniformly, and fills up to `count` with uniform negatives.

  RPN: 256 with at most 128 positives; RoI heads: 512 with at most 128. Fewer than `count` rows are valid
  where positives and negatives together do not suffice.

  Args:
    labels: i32[N]: `matcher.POSITIVE`, `NEGATIVE`; other values are never drawn.
    count: S.
  Returns: `Sample` of S rows.
  Raises: ValueError unless 0 <= most_positives <= count.
  Source: Ren et al. 2015, section 3.1.3.
  """
  if not 0 <= most_positives <= count:
    raise ValueError(f"most_positives is {most_positives}; use a number from 0 to the sample's {count}")
  positive_key, negative_key = jax.random.split(key)
  positives, found = _draw(positive_key, labels == POSITIVE, most_positives)
  negatives, others = _draw(negative_key, labels == NEGATIVE, count)
  place = jnp.arange(count)
  is_positive = place < found
  valid = is_positive | (place - found < others)
  from_negatives = negatives[jnp.clip(place - found, 0, negatives.size - 1)]
  from_positives = jnp.pad(positives, (0, count - positives.size))
  index = jnp.where(is_positive, from_positives, from_negatives)
  return Sample(jnp.where(valid, index, 0), is_positive, valid)


def _draw(key: Key, eligible: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """(Rows i32[min(count, N)], of which the first n are a uniform draw from the eligible ones; n i32[])."""
  count = min(count, eligible.size)
  score = jax.random.uniform(key, eligible.shape) + jnp.where(eligible, 1.0, -1.0)
  best, rows = lax.top_k(score, count)
  return rows, (best > 0.5).sum(dtype=jnp.int32)
