"""Loads one batch: reads and transforms its records and replaces those that cannot be decoded.

This code runs in threads or in worker processes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple, cast

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Elements, Record, Transform, check_elements, empty_batch
from ssl_jax.data.memory import MemoryReader, Stored
from ssl_jax.data.order import EvalOrder, Rows, TrainOrder
from ssl_jax.data.reader import Source
from ssl_jax.data.shared_buffers import SharedBuffers

_CHUNK = 16  # records that a thread processes at a time; clips, which take long, one by one


class Bad(NamedTuple):
  """A record that could not be decoded."""

  index: int
  name: str
  reason: str


class Loaded(NamedTuple):
  """A batch on its way to the main process."""

  # "valid", "index" and the elements, unless these are in a shared buffer; {} if loading was cancelled
  batch: dict[str, np.ndarray]
  buffer: int | None  # number of the shared buffer that holds the elements, if any
  bad: tuple[Bad, ...]
  complete: bool  # False if no replacement was found for a row
  seconds: float  # of work, summed over threads


class Cancelled(Exception):
  """Loading was cancelled, because no more batches are needed."""


CANCELLED = Loaded({}, None, (), False, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadBatch:
  """Maps a step to the rows of its global batch that this process loads (`Loaded`).

  The result is a function of the step and the order alone.
  """

  source: Source
  transform: Transform
  order: TrainOrder | EvalOrder
  replace: bool  # True: replace a bad record by the next good one; False: mark its row as not valid
  max_bad: int  # number of bad records that are tolerated in the source
  wanted: Callable[[], bool] = lambda: True  # called before each record; False cancels loading
  threads: Executor | None = None  # threads that divide the work; None: the calling thread does it all

  @functools.cached_property
  def elements(self) -> Elements:
    """The elements that the transform makes."""
    return check_elements(self.transform.elements)

  @property
  def is_held(self) -> bool:
    """Whether the elements of all records are in memory."""
    return isinstance(self.source.reader, MemoryReader) and isinstance(self.transform, Stored)

  @property
  def rows(self) -> int:
    """Number of rows of a batch that this process loads."""
    return len(self.order.positions)

  def __call__(self, step: int) -> Loaded:
    try:
      return self._load(step, empty_batch(self.elements, self.rows))
    except Cancelled:
      return CANCELLED

  def into_buffer(self, step: int, buffers: SharedBuffers, worker: int) -> Loaded:
    """As `__call__`, in worker process number `worker`; leaves the elements in one of its shared buffers."""
    number = buffers.reserve(worker)
    if number is None:
      return CANCELLED
    try:
      loaded = self._load(step, buffers.arrays(number))
    except Cancelled:
      return CANCELLED
    rest = {name: leaf for name, leaf in loaded.batch.items() if name not in self.elements}
    buffers.hand_over(number)
    return loaded._replace(batch=rest, buffer=number)

  def _load(self, step: int, arrays: dict[str, np.ndarray]) -> Loaded:
    rows = self.order.rows(step)
    if self.is_held:
      began = time.perf_counter()
      if cast(MemoryReader, self.source.reader).take(rows.indices, rows.valid, arrays):
        batch = {**arrays, "valid": rows.valid, "index": rows.indices.astype(np.int32)}
        complete = not self.replace or bool(rows.valid.all())
        return Loaded(batch, None, (), complete, time.perf_counter() - began)
    valid = rows.valid.copy()
    size = self.rows  # storage is faster if many are read at once
    if self.threads is not None:
      size = 1 if "clip" in self.source.fields else _CHUNK
    chunks = [range(start, min(start + size, self.rows)) for start in range(0, self.rows, size)]
    bad, seconds = [], 0.0
    map_chunks = map if self.threads is None else self.threads.map
    for found, spent in map_chunks(lambda chunk: self._fill(arrays, valid, rows, chunk), chunks):
      bad += found
      seconds += spent
    batch = {**arrays, "valid": valid, "index": rows.indices.astype(np.int32)}
    return Loaded(batch, None, tuple(bad), not self.replace or bool(valid.all()), seconds)

  def _fill(
    self, arrays: dict[str, np.ndarray], valid: np.ndarray, rows: Rows, chunk: range
  ) -> tuple[list[Bad], float]:
    """Fills the rows of `chunk`; returns the bad records that were met and the seconds that it took."""
    began, bad = time.perf_counter(), []
    wanted = [row for row in chunk if rows.valid[row]]
    indices = [int(rows.indices[row]) for row in wanted]
    records = dict(zip(wanted, self.source.read_each(indices), strict=True))
    for row in chunk:
      made = None
      if rows.valid[row]:
        made = self._first_good(records.pop(row), int(rows.indices[row]), rows.seeds[row], bad)
      valid[row] = made is not None
      for name, array in arrays.items():
        array[row] = 0 if made is None else made[name]
    return bad, time.perf_counter() - began

  def _first_good(
    self, record: Record | DecodeError, index: int, seed: tuple[int, ...], bad: list[Bad]
  ) -> dict[str, np.ndarray] | None:
    """Returns the elements of record `index`, or of the first good record after it; None if there is none."""
    for ahead in range(min(self.max_bad + 2, len(self.source)) if self.replace else 1):
      place = (index + ahead) % len(self.source)
      if ahead:
        (record,) = self.source.read_each([place])
      if not self.wanted():
        raise Cancelled
      try:
        return self._transformed(record, place, seed)
      except DecodeError as error:
        bad.append(Bad(place, self.source.name(place), str(error)))
    return None

  def _transformed(
    self, record: Record | DecodeError, place: int, seed: tuple[int, ...]
  ) -> dict[str, np.ndarray]:
    if isinstance(record, DecodeError):
      raise record
    try:
      made = self.transform(np.random.default_rng(seed) if self.transform.random else None, record)
      self._check(made)
    except DecodeError:
      raise
    except Exception as error:
      error.add_note(f"while loading {self.source.name(place)}")
      raise
    return made

  def _check(self, made: dict[str, np.ndarray]) -> None:
    """Raises ValueError unless the transform made the arrays that it declares; a number counts as a 0-d
    array.
    """
    elements = self.elements
    if made.keys() != elements.keys():
      raise ValueError(f"the transform made {sorted(made)}, but it declares {sorted(elements)}")
    for name, spec in elements.items():
      value = made[name]
      if np.shape(value) != spec.shape or (isinstance(value, np.ndarray) and value.dtype != spec.dtype):
        kind = getattr(value, "dtype", type(value).__name__)
        declared = f"{np.dtype(spec.dtype)}{list(spec.shape)}"
        raise ValueError(
          f"the transform made {name} {kind}{list(np.shape(value))}, but it declares {declared}"
        )
