"""Which images make up a batch: a pure function of (seed, epoch, index), for any number of processes."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
  """One process's share of a global batch."""

  indices: np.ndarray  # i64[b]: places in the source
  mask: np.ndarray  # bool[b]: rows that count; the others repeat an image
  seeds: tuple[tuple[int, ...], ...]  # of each row's own random numbers


@dataclasses.dataclass(frozen=True)
class TrainOrder:
  """Every epoch a permutation of its own; what does not fill the last batch of an epoch is left out of it."""

  size: int  # of the source
  batch_size: int  # global
  seed: int
  process_index: int
  process_count: int

  def rows(self, step: int) -> Rows:
    """Global batch n is places [n B, (n + 1) B) of its epoch's permutation; process p of P gets part p."""
    epoch, batch = divmod(step, self.size // self.batch_size)
    start, stop = _share(batch, self.batch_size, self.process_index, self.process_count)
    indices = permutation(self.seed, epoch, self.size)[start:stop]
    # 1 + place: numpy pads seeds with zeros; (seed, epoch, 0) would draw the numbers that shuffled the epoch.
    seeds = tuple((self.seed, epoch, 1 + place) for place in range(start, stop))
    return Rows(indices, np.ones(len(indices), bool), seeds)


@dataclasses.dataclass(frozen=True)
class EvalOrder:
  """Every image once, in order; the last batch is filled up with rows that do not count."""

  size: int
  batch_size: int  # global
  process_index: int
  process_count: int

  def rows(self, step: int) -> Rows:
    """As in training; every process has equally many batches, even where its share has no image left."""
    start, stop = _share(step, self.batch_size, self.process_index, self.process_count)
    places = np.arange(start, stop)
    seeds = tuple((0, 0, 1 + int(place)) for place in places)
    return Rows(np.minimum(places, self.size - 1), places < self.size, seeds)


@functools.lru_cache(maxsize=4)  # two epochs of two sources: near the end of one the next is wanted too
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
  """i64[size], read-only: the order in which `epoch` shows the images."""
  order = np.random.default_rng((seed, epoch)).permutation(size)
  order.flags.writeable = False
  return order


def _share(batch: int, batch_size: int, process_index: int, process_count: int) -> tuple[int, int]:
  local = batch_size // process_count
  start = batch * batch_size + process_index * local
  return start, start + local
