"""Records that are held in memory as arrays, which a batch takes all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Elements, Record
from ssl_jax.data.reader import Reader


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryReader:
  """A Reader of records whose arrays are in memory."""

  arrays: dict[str, np.ndarray]  # by element, [N, ...]
  bad: dict[int, str]  # index -> reason, of records that could not be decoded
  origin: Reader

  def __len__(self) -> int:
    return len(self.origin)

  def read(self, indices: Sequence[int]) -> list[Record]:
    for i in indices:
      if i in self.bad:
        raise DecodeError(self.bad[i])
    return [{name: array[i] for name, array in self.arrays.items()} for i in indices]

  def name(self, index: int) -> str:
    return self.origin.name(index)

  def take(self, indices: np.ndarray, valid: np.ndarray, into: Mapping[str, np.ndarray]) -> bool:
    """Fills whole arrays by one call of NumPy each, if no record of theirs is bad.

    Args:
      indices: i64[B], those of records.
      valid: bool[B]; rows that are not valid become 0.
      into: arrays [B, ...] by element.
    Returns: whether the arrays were filled.
    """
    if not self.bad.keys().isdisjoint(indices[valid].tolist()):
      return False
    for name, array in into.items():
      np.take(self.arrays[name], indices, axis=0, out=array, mode="clip")
      array[~valid] = 0
    return True


@dataclasses.dataclass(frozen=True)
class Stored:
  """Returns the stored elements of a record: for a cached source whose records hold the result of another
  transform.
  """

  elements: Elements
  random: bool = False

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    return {name: record[name] for name in self.elements}
