"""Shared memory through which worker processes hand over batches: a few buffers for each worker, used again
and again.

Fresh shared memory for every batch would cost more than a tenth of decoding it: each of its pages is found,
cleared and mapped anew, in the worker and in the main process.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shutil
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ssl_jax.data.elements import Elements

PER_WORKER = 3  # one being filled, one ready, one being copied out
_HEADER = 4096  # bytes before the buffers: one for each, 1 while the main process has yet to copy it;
_STOP = _HEADER - 1  # the last byte is 1 when no more batches are wanted
_ALIGN = 64  # bytes between whose multiples each array begins
_FOLDER = "/dev/shm"  # where Linux keeps shared memory


@dataclasses.dataclass(frozen=True, eq=False)
class SharedBuffers:
  """Opens the memory of that name when it is first used; a pickled copy opens it again."""

  name: str
  workers: int
  elements: Elements  # of one example
  rows: int  # of one batch

  @functools.cached_property
  def _memory(self) -> SharedMemory:
    return SharedMemory(self.name)

  def __reduce__(self):
    return SharedBuffers, (self.name, self.workers, self.elements, self.rows)

  def wanted(self) -> bool:
    """False after `stop`."""
    return not self._memory.buf[_STOP]

  def stop(self) -> None:
    """In the main process: tells all workers to stop."""
    self._memory.buf[_STOP] = 1

  def reserve(self, worker: int) -> int | None:
    """A buffer of `worker` that nobody reads, after waiting for one; None if no more batches are wanted."""
    while self.wanted():
      for number in range(worker * PER_WORKER, (worker + 1) * PER_WORKER):
        if not self._memory.buf[number]:
          return number
      time.sleep(1e-3)
    return None

  def arrays(self, number: int) -> dict[str, np.ndarray]:
    """The arrays of one batch by name, [rows, ...]: the buffer itself."""
    found, offset = {}, _HEADER + number * buffer_bytes(self.elements, self.rows)
    for name, spec in self.elements.items():
      found[name] = np.ndarray((self.rows, *spec.shape), spec.dtype, self._memory.buf, offset)
      offset += _aligned(self.rows * spec.size_in_bytes)
    return found

  def hand_over(self, number: int) -> None:
    """In the worker: the buffer is full."""
    self._memory.buf[number] = 1

  def copy_out(self, number: int) -> dict[str, np.ndarray]:
    """In the main process: a copy of the buffer's arrays; the buffer is free again."""
    found = {name: array.copy() for name, array in self.arrays(number).items()}
    self._memory.buf[number] = 0
    return found

  def remove(self) -> None:
    """In the main process, when the workers are gone."""
    self._memory.close()
    self._memory.unlink()


def buffer_bytes(elements: Elements, rows: int) -> int:
  """Bytes of the arrays of one batch."""
  return sum(_aligned(rows * spec.size_in_bytes) for spec in elements.values())


def make_shared_buffers(workers: int, elements: Elements, rows: int) -> SharedBuffers:
  """Reserves memory for `workers` processes that hand over batches of `rows` examples.

  Raises: ValueError if there is not enough of it: writing beyond its end would kill a worker without a
    message.
  """
  count, batch = workers * PER_WORKER, buffer_bytes(elements, rows)
  if count > _STOP:
    raise ValueError(f"workers={workers}; use at most {_STOP // PER_WORKER}")
  size = _HEADER + count * batch
  if os.path.isdir(_FOLDER) and size > shutil.disk_usage(_FOLDER).free:
    free = shutil.disk_usage(_FOLDER).free
    raise ValueError(
      f"workers={workers} hand over batches of {batch / 2**20:.0f} MiB through "
      f"{_FOLDER} and need {size / 2**20:.0f} MiB of it; {free / 2**20:.0f} MiB are free. Use "
      "workers=0 (threads), fewer workers, or more shared memory (docker run --shm-size)"
    )
  memory = SharedMemory(create=True, size=size)
  memory.close()
  return SharedBuffers(memory.name, workers, elements, rows)


def _aligned(size: int) -> int:
  return math.ceil(size / _ALIGN) * _ALIGN
