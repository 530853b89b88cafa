"""Loads one batch: reads, decodes, transforms, replaces what is bad. Runs in threads or worker processes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.order import EvalOrder, Rows, TrainOrder
from ssl_jax.data.reader import Record, Source
from ssl_jax.data.shared_buffers import SharedBuffers

_CHUNK = 16  # images given to one of several threads


class Bad(NamedTuple):
  """An image that could not be decoded."""

  index: int
  name: str
  reason: str


class Loaded(NamedTuple):
  """What a batch brings along to the main process."""

  batch: dict[str, np.ndarray]  # empty if loading was called off; without "image" if that lies in a slot
  slot: int | None
  bad: tuple[Bad, ...]
  complete: bool  # False: a row found no replacement
  seconds: float  # of work, summed over threads


class CalledOff(Exception):
  """Nobody waits for this batch any more."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadBatch:
  """step -> Loaded: one process's share of that step's global batch, a function of step and order alone."""

  source: Source
  transform: Callable  # see transforms.py
  order: TrainOrder | EvalOrder
  replace: bool  # a bad image by the next good one of the source; False: its row is masked
  max_bad: int  # bad images that the source may have
  wanted: Callable[[], bool] = lambda: True  # asked before each image; False calls loading off
  threads: Executor | None = None  # that share the work; None: this one does it all

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the images of one batch."""
    return (self.order.batch_size // self.order.process_count, *self.transform.shape)

  def __call__(self, step: int) -> Loaded:
    try:
      return self._load(step, np.empty(self.shape, np.uint8), None)
    except CalledOff:
      return Loaded({}, None, (), False, 0.0)

  def into_slot(self, step: int, slots: SharedBuffers, worker: int) -> Loaded:
    """As calling it, in worker process number `worker`, with the images left in one of its slots."""
    slot = slots.reserve(worker)
    try:
      if slot is None:
        raise CalledOff
      loaded = self._load(step, slots.images(slot), slot)
    except CalledOff:
      return Loaded({}, None, (), False, 0.0)
    del loaded.batch["image"]
    slots.hand_over(slot)
    return loaded

  def _load(self, step: int, images: np.ndarray, slot: int | None) -> Loaded:
    rows = self.order.rows(step)
    batch = {
      "image": images,
      "label": np.zeros(len(images), np.int32),
      "mask": rows.mask.copy(),
      "index": rows.indices.astype(np.int32),
    }
    size = len(images) if self.threads is None else _CHUNK  # storage likes to be asked for many at once
    chunks = [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    bad, seconds = [], 0.0
    share = map if self.threads is None else self.threads.map
    for found, spent in share(lambda chunk: self._fill(batch, rows, chunk), chunks):
      bad += found
      seconds += spent
    complete = not self.replace or bool(batch["mask"].all())
    return Loaded(batch, slot, tuple(bad), complete, seconds)

  def _fill(self, batch: dict[str, np.ndarray], rows: Rows, chunk: range) -> tuple[list[Bad], float]:
    """Fills some rows of `batch`; returns what was bad on the way and the seconds it took."""
    began, bad = time.perf_counter(), []
    wanted = [row for row in chunk if rows.mask[row]]
    records = dict(zip(wanted, self.source.read_each([int(rows.indices[row]) for row in wanted])))
    for row in chunk:
      index, seed = int(rows.indices[row]), rows.seeds[row]
      found = self._image(records.pop(row), index, seed, bad) if rows.mask[row] else None
      batch["mask"][row] = found is not None
      batch["image"][row], batch["label"][row] = found or (0, 0)
    return bad, time.perf_counter() - began

  def _image(
    self, record: Record | DecodeError, index: int, seed: tuple[int, ...], bad: list[Bad]
  ) -> tuple[np.ndarray, int] | None:
    """The transformed image `index`, or the first good one after it, and its label; None if there is none."""
    for ahead in range(min(self.max_bad + 2, len(self.source)) if self.replace else 1):
      place = (index + ahead) % len(self.source)
      if ahead:
        (record,) = self.source.read_each([place])
      if not self.wanted():
        raise CalledOff
      try:
        return self._transformed(record, place, seed)
      except DecodeError as error:
        bad.append(Bad(place, self.source.name(place), str(error)))
    return None

  def _transformed(
    self, record: Record | DecodeError, place: int, seed: tuple[int, ...]
  ) -> tuple[np.ndarray, int]:
    if isinstance(record, DecodeError):
      raise record
    try:
      image = self.transform(np.random.default_rng(seed) if self.transform.random else None, record["image"])
      if image.shape != tuple(self.transform.shape) or image.dtype != np.uint8:
        raise ValueError(
          f"the transform made {image.dtype}{list(image.shape)}, it promised "
          f"uint8{list(self.transform.shape)}"
        )
    except DecodeError:
      raise
    except Exception as error:
      error.add_note(f"while loading {self.source.name(place)}")
      raise
    return image, record["label"]
