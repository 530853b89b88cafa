"""Delivers batches that threads or worker processes decode ahead of time.

The batches do not depend on the number of threads or processes.
"""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import grain
import numpy as np
from absl import flags

from ssl_jax.data import bad_records
from ssl_jax.data.elements import RESERVED, Transform
from ssl_jax.data.load import Bad, LoadBatch, Loaded
from ssl_jax.data.order import EvalOrder, Positions, TrainOrder
from ssl_jax.data.reader import Source, cores
from ssl_jax.data.shared_buffers import SharedBuffers, make_shared_buffers

# Arrays are passed in our shared buffers, never in Grain's shared memory.
_PICKLE_ARRAYS = grain.experimental.DatasetOptions(min_shm_size=2**40)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # stop a run; handled by the main process only
_WORKER: list[int] = []  # in a worker process: its number
_AHEAD = 2  # batches that are read at once: no thread is idle while the last rows of one are decoded


def steps_per_epoch(source: Source, batch_size: int) -> int:
  """Returns the number of batches in an epoch, without an incomplete last one.

  Raises: ValueError if there are fewer images than one batch needs.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}; use a positive number")
  if len(source) < batch_size:
    raise ValueError(
      f"batch_size={batch_size} is more than the {len(source)} {source.records} of the data set; use at "
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
  positions: Positions | None = None,
  max_bad_fraction: float = 0.01,
) -> Batches:
  """Makes the shuffled batches of steps `start` to `stop - 1`; each depends on (seed, step) alone.

  Resuming at a late step costs nothing: the batches before `start` are not read. A record that cannot be
  decoded is named in a warning and replaced by the next good record of the source.

  Args:
    batch_size: global; its rows do not depend on how they are divided over processes.
    transform: see elements.py. Record i of an epoch draws from `default_rng((seed, epoch, 1 + i))`.
    workers: number of processes that decode, each a whole batch at a time. 0: threads of this process decode,
      which is as fast on a few cores, and better for cached records, of which each worker would get a copy.
    threads: number of threads that decode if there are no workers; 0: one for each core.
    positions: rows of the global batch that this process loads, see `parallel.local_rows`; None: all.
    max_bad_fraction: fraction of the source's records that may be bad before reading stops with an error.
  Returns: an iterator that yields, for each step, the elements of the transform with a leading axis over
    `positions`.
  Raises: ValueError for arguments out of range and, while reading, if too many records are bad, with a list
    of them.
  """
  steps_per_epoch(source, batch_size)
  positions = _positions(batch_size, positions)
  if not 0 <= start <= stop:
    raise ValueError(f"start={start} and stop={stop} must satisfy 0 <= start <= stop")
  if seed < 0:
    raise ValueError(f"seed={seed}; use 0 or more")
  order = TrainOrder(len(source), batch_size, seed, positions)
  load = LoadBatch(
    source, transform, order, replace=True, max_bad=bad_records.allowed(source, max_bad_fraction)
  )
  return Batches(load, range(start, stop), workers=workers, threads=threads)


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  transform: Transform,
  workers: int = 0,
  threads: int = 0,
  positions: Positions | None = None,
  max_bad_fraction: float = 0.01,
) -> Batches:
  """Makes batches with every record once, in order; every process gets equally many, all of the same size.

  The rows that pad the last batch are zero and not valid. So are records that cannot be decoded, which are
  named in a warning; they are not replaced, because the replacement would count twice.

  Args: as for `train_batches`.
  Returns: an iterator that yields the elements of the transform with a leading axis over `positions`, "valid"
    bool[B], False for rows that do not count, and "index" i32[B], the indices of the records in the source.
  Raises: as `train_batches`.
  """
  positions = _positions(batch_size, positions)
  order = EvalOrder(len(source), batch_size, positions)
  load = LoadBatch(
    source, transform, order, replace=False, max_bad=bad_records.allowed(source, max_bad_fraction)
  )
  steps = range(-(-len(source) // batch_size))
  return Batches(load, steps, extra=RESERVED, workers=workers, threads=threads)


class Batches:
  """An iterator over batches that are loaded ahead of time.

  It is also a context manager: leave it or call `close`, unless it is read to its end. The attribute `bad`
  holds the records met so far that could not be decoded: {name: reason}.
  """

  def __init__(
    self, load: LoadBatch, steps: range, *, extra: tuple[str, ...] = (), workers: int, threads: int
  ):
    """Starts loading.

    Args:
      extra: arrays to deliver besides the elements of the transform: "valid", "index".
    """
    workers = workers if steps else 0
    if workers < 0 or threads < 0:
      raise ValueError(f"workers={workers} and threads={threads}; use 0 or more")
    self.bad: dict[str, str] = {}
    self._load, self._names = load, (*load.elements, *extra)
    # Whole batches of records in memory are taken by the threads that read ahead.
    most = _AHEAD if load.is_held and not workers else cores()
    self._concurrency = min(workers or threads or cores(), cores(), most)
    self._seconds: collections.deque[float] = collections.deque(maxlen=64)
    self._buffers = None
    if workers:
      self._buffers = make_shared_buffers(workers, load.elements, load.rows)
      self._iterator, stop = _in_processes(load, steps, workers, self._buffers)
    else:
      self._iterator, stop = _in_threads(load, steps, threads or cores())
    self._close = weakref.finalize(self, stop)  # also when garbage-collected, and at exit

  def __iter__(self) -> Batches:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if not self._close.alive:
      raise StopIteration
    try:
      loaded = next(cast(Iterator[Loaded], self._iterator))  # None only after `close`
      self._account(loaded)
    except BaseException:  # StopIteration, too
      self.close()
      raise
    buffers = cast(SharedBuffers, self._buffers)  # None if no batch is in a buffer
    arrays = {} if loaded.buffer is None else buffers.copy_out(loaded.buffer)
    found = loaded.batch | arrays
    return {name: found[name] for name in self._names}

  def input_rate(self) -> float:
    """Images per second (of the global batch) that the host could decode; nan before the first batch.

    This is the number of workers or threads (at most one per core) times the batch size, divided by the mean
    seconds of work for a batch. It is therefore the capacity of the host even while it waits for the device.
    """
    if not self._seconds:
      return float("nan")
    return self._concurrency * self._load.order.batch_size * len(self._seconds) / sum(self._seconds)

  def close(self) -> None:
    """Stops loading and waits until every thread and process that has loaded ends. May be called twice."""
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
    if len(self.bad) > self._load.max_bad or not loaded.complete:
      raise bad_records.too_many(self.bad, self._load.max_bad, self._load.source)

  def _warn(self, bad: Bad) -> None:
    if bad.name not in self.bad:
      self.bad[bad.name] = bad.reason
      bad_records.warn(bad.name, bad.reason)


def _in_threads(load: LoadBatch, steps: range, threads: int) -> tuple[Iterator[Loaded], Callable[[], None]]:
  """Returns (iterator over Loaded, function that stops all threads and waits for them)."""
  pool = ThreadPoolExecutor(threads, "decode") if threads > 1 else None
  stopped, callers = threading.Event(), set()
  load = dataclasses.replace(load, threads=pool, wanted=lambda: not stopped.is_set())

  def noted(step: int) -> Loaded:
    callers.add(threading.current_thread())  # noted, because Grain does not wait for them
    return load(step)

  def stop() -> None:
    stopped.set()
    iterator.close()
    if pool is not None:
      pool.shutdown(wait=True, cancel_futures=True)
    for thread in callers - {threading.current_thread()}:
      thread.join()

  ahead = _AHEAD if pool else 1
  iterator = iter(_dataset(noted, steps, grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)))
  return iterator, stop


def _in_processes(
  load: LoadBatch, steps: range, workers: int, buffers: SharedBuffers
) -> tuple[Iterator[Loaded], Callable[[], None]]:
  """Returns (iterator over Loaded, function that stops). Worker i of n loads batches i, i + n, i + 2n ..."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain 0.2.18 reads a flag, an error outside of absl.app (Grain issue 1355)
  load = dataclasses.replace(load, wanted=buffers.wanted)
  dataset = _dataset(
    _IntoBuffer(load, buffers), steps, grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  dataset = grain.experimental.WithOptionsIterDataset(dataset, _PICKLE_ARRAYS)
  options = grain.MultiprocessingOptions(num_workers=workers)
  iterator = iter(dataset.mp_prefetch(options, worker_init_fn=_begin_worker))
  # Workers are started from a thread that blocks signals, so that Ctrl-C cannot kill them while they import.
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
  """A Grain data set whose elements are whole batches, so that step n needs no earlier ones."""
  if not len(steps):
    return grain.MapDataset.source([]).to_iter_dataset(options)
  return grain.MapDataset.range(steps.start, steps.stop).map(load).to_iter_dataset(options)


class _IntoBuffer(NamedTuple):
  """The function that a worker process runs."""

  load: LoadBatch
  buffers: SharedBuffers

  def __call__(self, step: int) -> Loaded:
    return self.load.into_buffer(step, self.buffers, _WORKER[0])


def _begin_worker(index: int, count: int) -> None:
  """Ignores signals, which the main process handles after a step, and ends if the main process ends."""
  _WORKER.append(index)
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
  parent = multiprocessing.parent_process()  # every worker has one
  multiprocessing.connection.wait([parent.sentinel])  # pyright: ignore[reportOptionalMemberAccess]
  os._exit(1)


def _positions(batch_size: int, positions: Positions | None) -> Positions:
  """Returns the positions, by default all. Raises ValueError if one is not a row of the batch."""
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}; use a positive number")
  positions = range(batch_size) if positions is None else positions
  if not len(positions) or not 0 <= min(positions) <= max(positions) < batch_size:
    raise ValueError(f"positions {list(positions)[:4]}... are not rows of a batch of batch_size={batch_size}")
  return positions
