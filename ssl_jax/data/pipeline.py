"""Batches of uint8 images, decoded ahead of time in threads or processes, the same whatever decodes them."""

from __future__ import annotations

import collections
import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from ssl_jax.data.elements import RESERVED, Transform
from ssl_jax.data.load import Bad, LoadBatch, Loaded
from ssl_jax.data.order import EvalOrder, TrainOrder
from ssl_jax.data.reader import Source, cores
from ssl_jax.data.shared_buffers import SharedBuffers, make_shared_buffers

_LOG = logging.getLogger(__name__)
_PICKLE_ARRAYS = grain.experimental.DatasetOptions(min_shm_size=2**40)  # the arrays travel in shared buffers
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that stop a run: the main process answers them for all
_WORKER: list[int] = []  # in a worker process: its number
_LISTED = 50  # bad files named in an error


def steps_per_epoch(source: Source, batch_size: int) -> int:
  """Batches in an epoch; what does not fill the last one is left out.

  Raises: ValueError if there are not enough images for one.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}; use a positive number")
  if len(source) < batch_size:
    raise ValueError(
      f"batch_size={batch_size} is more than the {len(source)} images of the data set; use at "
      f"most {len(source)}"
    )
  return len(source) // batch_size


def train_batches(
  source: Source,
  *,
  batch_size: int,
  seed: int,
  start: int,
  stop: int,
  transform: Transform,
  workers: int = 0,
  threads: int = 0,
  positions: Sequence[int] | None = None,
  max_bad_fraction: float = 0.01,
) -> Batches:
  """Shuffled batches of steps `start` to `stop - 1`; the batch of a step depends on (seed, step) alone.

  A late start costs nothing: what comes before `start` is never read. A record that cannot be decoded is
    named in a warning and replaced by
  the next one of the source.

  Args:
    batch_size: global; the rows of all processes together do not depend on how they are divided.
    transform: see elements.py. Record i of an epoch draws from `default_rng((seed, epoch, 1 + i))`.
    workers: processes that decode, each a whole batch at a time; 0: threads of this process, which are as
      good up to a few cores, and better for records held in memory, of which each worker would get a copy.
    threads: that decode together where there are no workers; 0: one for each core.
    positions: places in the global batch that this process loads, see `parallel.local_rows`; None: all.
    max_bad_fraction: fraction of the source that may be bad before reading stops with an error.
  Returns: the elements of the transform with a leading axis of positions, for each step.
  Raises: ValueError for sizes that do not fit; on reading, when too much is bad, with the list.
  """
  steps_per_epoch(source, batch_size)
  positions = _positions(batch_size, positions)
  if not 0 <= start <= stop:
    raise ValueError(f"start={start} and stop={stop} must satisfy 0 <= start <= stop")
  if seed < 0:
    raise ValueError(f"seed={seed}; use 0 or more")
  order = TrainOrder(len(source), batch_size, seed, positions)
  load = LoadBatch(source, transform, order, replace=True, max_bad=_max_bad(source, max_bad_fraction))
  return Batches(load, range(start, stop), workers=workers, threads=threads)


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  transform: Transform,
  workers: int = 0,
  threads: int = 0,
  positions: Sequence[int] | None = None,
  max_bad_fraction: float = 0.01,
) -> Batches:
  """Every record once, in order, equally many batches of one size on every process.

  Rows that pad the last batch are zero and not valid; so are records that cannot be decoded, which are named
  in a warning: to replace them would count another record twice.

  Args: as of `train_batches`.
  Returns: batch by batch the elements of the transform with a leading axis of positions, "valid" bool[B]:
    rows that count, and "index" i32[B]: places in the source.
  Raises: as `train_batches`.
  """
  positions = _positions(batch_size, positions)
  order = EvalOrder(len(source), batch_size, positions)
  load = LoadBatch(source, transform, order, replace=False, max_bad=_max_bad(source, max_bad_fraction))
  steps = range(-(-len(source) // batch_size))
  return Batches(load, steps, extra=RESERVED, workers=workers, threads=threads)


class Batches:
  """An iterator over batches loaded ahead. A context manager: leave it or `close` it, unless read to its end.

  `bad`: reasons why images could not be decoded, by name, as far as read.
  """

  def __init__(
    self, load: LoadBatch, steps: range, *, extra: tuple[str, ...] = (), workers: int, threads: int
  ):
    """Begins to load.

    Args:
      extra: what is delivered beside the elements of the transform: "valid", "index".
    """
    workers = workers if steps else 0
    if workers < 0 or threads < 0:
      raise ValueError(f"workers={workers} and threads={threads}; use 0 or more")
    self.bad: dict[str, str] = {}
    self._load, self._names = load, (*load.elements, *extra)
    self._concurrency = min(workers or threads or cores(), cores())
    self._seconds: collections.deque[float] = collections.deque(maxlen=64)
    self._buffers = make_shared_buffers(workers, load.elements, load.rows) if workers else None
    if workers:
      self._iterator, stop = _in_processes(load, steps, workers, self._buffers)
    else:
      self._iterator, stop = _in_threads(load, steps, threads or cores())
    self._close = weakref.finalize(self, stop)  # also when forgotten, and at exit

  def __iter__(self) -> Batches:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if not self._close.alive:
      raise StopIteration
    try:
      loaded = next(self._iterator)
      self._account(loaded)
    except BaseException:  # the end, too
      self.close()
      raise
    arrays = {} if loaded.buffer is None else self._buffers.copy_out(loaded.buffer)
    found = loaded.batch | arrays
    return {name: found[name] for name in self._names}

  def input_rate(self) -> float:
    """Images a second (of the global batch) that decoding alone could deliver; nan before the first batch.

    Number of workers or threads, but of cores at most, times batch size, over the mean seconds of work a
    batch takes: so it tells what the host could do, also while the device keeps it waiting.
    """
    if not self._seconds:
      return float("nan")
    return self._concurrency * self._load.order.batch_size * len(self._seconds) / sum(self._seconds)

  def close(self) -> None:
    """Stops loading and waits until every thread and process is gone. May be called twice."""
    self._close()
    self._iterator = None  # Grain's iterators complain if they live until Python exits

  def __enter__(self) -> Batches:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _account(self, loaded: Loaded) -> None:
    self._seconds.append(max(loaded.seconds, 1e-9))
    for bad in loaded.bad:
      self._warn(bad)
    allowed = self._load.max_bad
    if len(self.bad) > allowed or not loaded.complete:
      lines = [f"{name}: {reason}" for name, reason in self.bad.items()]
      if len(lines) > _LISTED:
        lines[_LISTED:] = [f"and {len(lines) - _LISTED} more"]
      raise ValueError(
        f"{len(self.bad)} of {len(self._load.source)} images cannot be decoded, {allowed} are "
        "allowed; repair or remove them, or raise max_bad_fraction:\n  " + "\n  ".join(lines)
      )

  def _warn(self, bad: Bad) -> None:
    if bad.name not in self.bad:
      self.bad[bad.name] = bad.reason
      _LOG.warning("%s cannot be decoded and is left out: %s", bad.name, bad.reason)


def _in_threads(load: LoadBatch, steps: range, threads: int) -> tuple[Iterator[Loaded], Callable[[], None]]:
  """(iterator over Loaded, function that stops and waits for all threads)."""
  pool = ThreadPoolExecutor(threads, "decode") if threads > 1 else None
  stopped, callers = threading.Event(), set()
  load = dataclasses.replace(load, threads=pool, wanted=lambda: not stopped.is_set())

  def noted(step: int) -> Loaded:
    callers.add(threading.current_thread())  # Grain does not wait for them
    return load(step)

  def stop() -> None:
    stopped.set()
    iterator.close()
    if pool is not None:
      pool.shutdown(wait=True, cancel_futures=True)
    for thread in callers - {threading.current_thread()}:
      thread.join()

  ahead = 2 if pool else 1  # two batches at once: no thread idles while the last images of one are decoded
  iterator = iter(_dataset(noted, steps, grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)))
  return iterator, stop


def _in_processes(
  load: LoadBatch, steps: range, workers: int, buffers: SharedBuffers
) -> tuple[Iterator[Loaded], Callable[[], None]]:
  """(iterator over Loaded, function that stops). Worker i of n loads every n-th batch from the i-th on."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain 0.2.18 reads one: an error outside of absl.app (its issue 1355)
  load = dataclasses.replace(load, wanted=buffers.wanted)
  dataset = _dataset(
    _IntoBuffer(load, buffers), steps, grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  dataset = grain.experimental.WithOptionsIterDataset(dataset, _PICKLE_ARRAYS)
  options = grain.MultiprocessingOptions(num_workers=workers)
  iterator = iter(dataset.mp_prefetch(options, worker_init_fn=_begin_worker))
  # Workers are born of a thread that hears no signals: Ctrl-C cannot hit them while they still import.
  starter = ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, _SIGNALS))
  first = starter.submit(next, iterator)
  starter.shutdown(wait=False)

  def stop() -> None:
    buffers.stop()  # first: closing waits for each worker in turn
    futures.wait([first])
    iterator.close()
    buffers.remove()

  return _after(first, iterator), stop


def _after(first: futures.Future, rest: Iterator[Loaded]) -> Iterator[Loaded]:
  yield first.result()
  yield from rest


def _dataset(load: Callable[[int], Loaded], steps: range, options: grain.ReadOptions) -> grain.IterDataset:
  """One element is one batch, so that step n is reached without reading those before it."""
  if not len(steps):
    return grain.MapDataset.source([]).to_iter_dataset(options)
  return grain.MapDataset.range(steps.start, steps.stop).map(load).to_iter_dataset(options)


class _IntoBuffer(NamedTuple):
  """What a worker process runs."""

  load: LoadBatch
  buffers: SharedBuffers

  def __call__(self, step: int) -> Loaded:
    return self.load.into_buffer(step, self.buffers, _WORKER[0])


def _begin_worker(index: int, count: int) -> None:
  """Leaves signals to the main process, which stops after a step; but does not outlive it."""
  _WORKER.append(index)
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
  multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
  os._exit(1)


def _max_bad(source: Source, fraction: float) -> int:
  if not 0 <= fraction <= 1:
    raise ValueError(f"max_bad_fraction={fraction}; use a share from 0 to 1")
  return int(fraction * len(source) + 1e-9)


def _positions(batch_size: int, positions: Sequence[int] | None) -> Sequence[int]:
  """The positions, checked. Raises ValueError if one does not lie in the batch."""
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}; use a positive number")
  positions = range(batch_size) if positions is None else positions
  if not len(positions) or not 0 <= min(positions) <= max(positions) < batch_size:
    raise ValueError(f"positions {list(positions)[:4]}... do not lie in a batch of batch_size={batch_size}")
  return positions
