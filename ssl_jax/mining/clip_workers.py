"""Mines clips in worker processes, and stores the result of each clip."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.decode import DecodeError
from ssl_jax.mining import miners
from ssl_jax.mining.clip_results import ClipResult, ClipResults
from ssl_jax.video.clips import open_clip

Progress = Callable[[int, int, str], None]  # (clips done, all clips, figures)


class Work(NamedTuple):
  """What a worker does with a clip."""

  miner: str  # its name
  options: Mapping[str, Any]  # of the miner
  seed: int
  root: str  # the folder of the clips
  results: ClipResults


def mine_clips(work: Work, clips: Sequence[str], processes: int, progress: Progress) -> None:
  """Mines the clips that have no result yet, and stores their results.

  Args:
    clips: paths relative to the root.
    processes: how many; 1: this process.
  Raises: RuntimeError if a worker process dies; whatever the miner raises
    apart from DecodeError and OSError, which say that a clip is bad.
  """
  missing = [clip for clip in clips if not work.results.is_stored(clip)]
  done, records, bad = len(clips) - len(missing), 0, 0
  if done:
    progress(done, len(clips), f"{done} clips were finished before")
  for result in _mined(work, missing, min(processes, len(missing))):
    done, records, bad = done + 1, records + len(result.records), bad + bool(result.error)
    progress(done, len(clips), f"{records} records, {bad} bad clips")


def mine_clip(work: Work, clip: str) -> ClipResult:
  """Mines one clip and stores the result; returned is the result with empty records.

  The random numbers depend on the seed and the path of the clip only.
  """
  path, begun = os.path.join(work.root, clip), time.process_time()
  seconds = 0.0
  try:
    with open_clip(path) as opened:
      seconds = opened.duration
      found = miners.make(work.miner, **work.options).mine(opened, clip_rng(work.seed, clip))
    result = ClipResult(found.records, found.rejected)
  except (DecodeError, OSError) as error:
    result = ClipResult((), {}, error=str(error), again=isinstance(error, OSError))
  result = result._replace(seconds=seconds, work=time.process_time() - begun)
  work.results.store(clip, result)
  return result._replace(records=[{}] * len(result.records))


def clip_rng(seed: int, clip: str) -> np.random.Generator:
  """The generator of random numbers for a clip, given by its path relative to the root."""
  words = np.frombuffer(hashlib.sha256(clip.encode()).digest(), "<u4")
  return np.random.default_rng([seed, *map(int, words)])


def _mined(work: Work, clips: Sequence[str], processes: int) -> Iterator[ClipResult]:
  """Yields the results as the clips are finished."""
  if processes <= 1:
    yield from (mine_clip(work, clip) for clip in clips)
    return
  # Not forked: the libraries of this process have threads.
  context = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
    jobs = {pool.submit(mine_clip, work, clip): clip for clip in clips}
    try:
      for job in futures.as_completed(jobs):
        yield job.result()
    except BrokenProcessPool as error:
      raise RuntimeError(
        "a worker process ended unexpectedly, perhaps for want of memory; finished clips are kept: run the "
        "same command again, with fewer --processes"
      ) from error
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
