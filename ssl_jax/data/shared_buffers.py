"""Shared memory in which worker processes pass batches to the main process: a few reused buffers per worker.

Allocating shared memory for every batch would cost more than a tenth of the time of decoding it, because each
of its pages would have to be allocated, cleared and mapped again in the worker and in the main process.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shutil
import time
from multiprocessing.shared_memory import SharedMemory
from typing import cast

import numpy as np

from ssl_jax.data.elements import Elements

PER_WORKER = 3  # one being filled, one ready, one being copied out
_HEADER = 4096  # bytes before the buffers; byte n is 1 while buffer n is full and not yet copied out
_STOP = _HEADER - 1  # the last byte of the header, which is 1 when no more batches are needed
_ALIGN = 64  # bytes; every array begins at a multiple
_FOLDER = "/dev/shm"  # where Linux keeps shared memory


@dataclasses.dataclass(frozen=True, eq=False)
class SharedBuffers:
  """Opens the shared memory called `name` on first use; a pickled copy opens it again in its own process."""

  name: str
  workers: int
  elements: Elements  # of one example
  rows: int  # of one batch

  @functools.cached_property
  def _memory(self) -> SharedMemory:
    return SharedMemory(self.name)

  @property
  def _bytes(self) -> memoryview:
    return cast(memoryview, self._memory.buf)  # None only after `remove`

  def __reduce__(self):
    return SharedBuffers, (self.name, self.workers, self.elements, self.rows)

  def wanted(self) -> bool:
    """Whether more batches are needed: False after `stop`."""
    return not self._bytes[_STOP]

  def stop(self) -> None:
    """In the main process: tells all workers to stop."""
    self._bytes[_STOP] = 1

  def reserve(self, worker: int) -> int | None:
    """Waits for a free buffer of `worker` and returns its number; None if no more batches are needed."""
    while self.wanted():
      for number in range(worker * PER_WORKER, (worker + 1) * PER_WORKER):
        if not self._bytes[number]:
          return number
      time.sleep(1e-3)
    return None

  def arrays(self, number: int) -> dict[str, np.ndarray]:
    """Returns the arrays [rows, ...] of buffer `number` by name, as views of the shared memory."""
    found, offset = {}, _HEADER + number * buffer_bytes(self.elements, self.rows)
    for name, spec in self.elements.items():
      found[name] = np.ndarray((self.rows, *spec.shape), spec.dtype, self._bytes, offset)
      offset += _aligned(self.rows * spec.size_in_bytes)
    return found

  def hand_over(self, number: int) -> None:
    """In a worker: marks the buffer as full."""
    self._bytes[number] = 1

  def copy_out(self, number: int) -> dict[str, np.ndarray]:
    """In the main process: returns a copy of the buffer's arrays and marks the buffer as free."""
    found = {name: array.copy() for name, array in self.arrays(number).items()}
    self._bytes[number] = 0
    return found

  def remove(self) -> None:
    """In the main process, after the workers have ended: removes the shared memory."""
    self._memory.close()
    self._memory.unlink()


def buffer_bytes(elements: Elements, rows: int) -> int:
  """Returns the bytes that the arrays of one batch take, including alignment."""
  return sum(_aligned(rows * spec.size_in_bytes) for spec in elements.values())


def make_shared_buffers(workers: int, elements: Elements, rows: int) -> SharedBuffers:
  """Reserves shared memory for `workers` processes that pass batches of `rows` examples.

  Raises: ValueError if the free shared memory does not suffice; otherwise a worker would be killed without a
    message when it writes beyond the end.
  """
  count, batch = workers * PER_WORKER, buffer_bytes(elements, rows)
  if count > _STOP:
    raise ValueError(f"workers={workers}; use at most {_STOP // PER_WORKER}")
  size = _HEADER + count * batch
  if os.path.isdir(_FOLDER) and size > shutil.disk_usage(_FOLDER).free:
    free = shutil.disk_usage(_FOLDER).free
    raise ValueError(
      f"workers={workers} pass batches of {batch / 2**20:.0f} MiB through "
      f"{_FOLDER} and need {size / 2**20:.0f} MiB there, but only {free / 2**20:.0f} MiB are free. Use "
      "workers=0 (threads), fewer workers, or more shared memory (docker run --shm-size)"
    )
  memory = SharedMemory(create=True, size=size)
  memory.close()
  return SharedBuffers(memory.name, workers, elements, rows)


def _aligned(size: int) -> int:
  return math.ceil(size / _ALIGN) * _ALIGN
