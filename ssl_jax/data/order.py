"""Which records make up a batch: a pure function of (seed, epoch, index), for any number of processes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
  """The rows of a global batch that one process loads."""

  indices: np.ndarray  # i64[b]: places in the source
  valid: np.ndarray  # bool[b]: rows that count; the others repeat a record
  seeds: tuple[tuple[int, ...], ...]  # of each row's own random numbers


@dataclasses.dataclass(frozen=True)
class TrainOrder:
  """Every epoch is a permutation of its own; what does not fill the last batch of an epoch is left out of it."""

  size: int  # of the source
  batch_size: int  # global
  seed: int
  positions: Sequence[int]  # places in the global batch that this process loads

  def rows(self, step: int) -> Rows:
    """Global batch n of an epoch is places [n B, (n + 1) B) of its permutation."""
    epoch, batch = divmod(step, self.size // self.batch_size)
    places = batch * self.batch_size + np.asarray(self.positions, np.int64)
    indices = permutation(self.seed, epoch, self.size)[places]
    # 1 + place: numpy pads seeds with zeros; (seed, epoch, 0) would draw the numbers that shuffled the epoch.
    seeds = tuple((self.seed, epoch, 1 + place) for place in places.tolist())
    return Rows(indices, np.ones(len(indices), bool), seeds)


@dataclasses.dataclass(frozen=True)
class EvalOrder:
  """Every record once, in order; the last batch is padded with rows that do not count."""

  size: int
  batch_size: int  # global
  positions: Sequence[int]

  def rows(self, step: int) -> Rows:
    """As in training; every process has equally many batches, even if none of its rows counts."""
    places = step * self.batch_size + np.asarray(self.positions, np.int64)
    seeds = tuple((0, 0, 1 + place) for place in places.tolist())
    return Rows(np.minimum(places, self.size - 1), places < self.size, seeds)


@functools.lru_cache(maxsize=4)  # two epochs of two sources: near the end of one the next is wanted too
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
  """i64[size], read-only: the order in which `epoch` shows the records."""
  order = np.random.default_rng((seed, epoch)).permutation(size)
  order.flags.writeable = False
  return order
