"""Shared memory through which worker processes hand over images: a few slots for each, used again and again.

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

PER_WORKER = 3  # one being filled, one ready, one being copied out
_HEADER = 4096  # bytes before the images: one for each slot, 1 while the main process has yet to copy it;
_STOP = _HEADER - 1  # the last is 1 when nobody wants more
_FOLDER = "/dev/shm"  # where Linux keeps shared memory


@dataclasses.dataclass(frozen=True, eq=False)
class SharedBuffers:
  """Opens the memory of that name when it is first used; a pickled copy opens it again."""

  name: str
  workers: int
  shape: tuple[int, ...]  # of the images of one batch

  @functools.cached_property
  def _memory(self) -> SharedMemory:
    return SharedMemory(self.name)

  def __reduce__(self):
    return SharedBuffers, (self.name, self.workers, self.shape)

  def wanted(self) -> bool:
    """False after `stop`."""
    return not self._memory.buf[_STOP]

  def stop(self) -> None:
    """In the main process: tells all workers to stop."""
    self._memory.buf[_STOP] = 1

  def reserve(self, worker: int) -> int | None:
    """A slot of `worker` that nobody reads, after waiting for one; None if nobody wants more."""
    while self.wanted():
      for slot in range(worker * PER_WORKER, (worker + 1) * PER_WORKER):
        if not self._memory.buf[slot]:
          return slot
      time.sleep(1e-3)
    return None

  def images(self, slot: int) -> np.ndarray:
    """uint8[*shape]: the slot itself."""
    return np.ndarray(self.shape, np.uint8, self._memory.buf, offset=_HEADER + slot * math.prod(self.shape))

  def hand_over(self, slot: int) -> None:
    """In the worker: the slot is full."""
    self._memory.buf[slot] = 1

  def take(self, slot: int) -> np.ndarray:
    """In the main process: a copy of the slot, which is free again."""
    images = self.images(slot).copy()
    self._memory.buf[slot] = 0
    return images

  def remove(self) -> None:
    """In the main process, when the workers are gone."""
    self._memory.close()
    self._memory.unlink()


def make_shared_buffers(workers: int, shape: tuple[int, ...]) -> SharedBuffers:
  """Reserves memory for `workers` processes.

  Raises: ValueError if it is not there: writing beyond its end would kill a worker without a word.
  """
  count = workers * PER_WORKER
  if count > _STOP:
    raise ValueError(f"workers={workers}; use at most {_STOP // PER_WORKER}")
  size = _HEADER + count * math.prod(shape)
  if os.path.isdir(_FOLDER) and size > shutil.disk_usage(_FOLDER).free:
    free = shutil.disk_usage(_FOLDER).free
    raise ValueError(
      f"workers={workers} hand over batches of {math.prod(shape) / 2**20:.0f} MiB through "
      f"{_FOLDER} and need {size / 2**20:.0f} MiB of it; {free / 2**20:.0f} MiB are free. Use "
      "workers=0 (threads), fewer workers, or more shared memory (docker run --shm-size)"
    )
  memory = SharedMemory(create=True, size=size)
  memory.close()
  return SharedBuffers(memory.name, workers, tuple(shape))
