"""Chooses the records of each batch: a pure function of (seed, epoch, index), for any number of processes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Positions = Sequence[int] | np.ndarray  # rows of a global batch


class Rows(NamedTuple):
  """The rows of a global batch that one process loads."""

  indices: np.ndarray  # i64[b]: indices of the records in the source
  valid: np.ndarray  # bool[b]: False for rows that repeat a record as padding and do not count
  seeds: tuple[tuple[int, ...], ...]  # for the random numbers of each row


@dataclasses.dataclass(frozen=True)
class TrainOrder:
  """Each epoch is a different permutation of the source; an incomplete last batch is dropped."""

  size: int  # records in the source
  batch_size: int  # global
  seed: int
  positions: Positions  # rows of the global batch that this process loads

  def rows(self, step: int) -> Rows:
    """Global batch n of an epoch is the slice [n B, (n + 1) B) of its permutation."""
    epoch, batch = divmod(step, self.size // self.batch_size)
    places = batch * self.batch_size + np.asarray(self.positions, np.int64)
    indices = permutation(self.seed, epoch, self.size)[places]
    # 1 + place: numpy pads seeds with zeros, so (seed, epoch, 0) would draw the same numbers as the shuffle.
    seeds = tuple((self.seed, epoch, 1 + place) for place in places.tolist())
    return Rows(indices, np.ones(len(indices), bool), seeds)


@dataclasses.dataclass(frozen=True)
class EvalOrder:
  """Every record once, in order; the last batch is padded with rows that are not valid."""

  size: int
  batch_size: int  # global
  positions: Positions

  def rows(self, step: int) -> Rows:
    """As in training. Every process has equally many batches, even if none of its rows is valid."""
    places = step * self.batch_size + np.asarray(self.positions, np.int64)
    seeds = tuple((0, 0, 1 + place) for place in places.tolist())
    return Rows(np.minimum(places, self.size - 1), places < self.size, seeds)


@functools.lru_cache(maxsize=4)  # two epochs of two sources: the next is needed near the end of one
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
  """Returns i64[size], read-only: the order of the records in `epoch`."""
  order = np.random.default_rng((seed, epoch)).permutation(size)
  order.flags.writeable = False
  return order
