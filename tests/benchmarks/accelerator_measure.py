"""Times one side of a case of accelerator.py in its own process. Nothing here imports JAX or PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

ROUNDS = 3


class Run(NamedTuple):
  """Compiled work that can be timed."""

  advance: Callable[[], Any]  # one turn; it need not wait for the device
  wait: Callable[[Any], Any]  # waits for what `advance` returned
  images: int  # in a turn
  details: dict  # for the record
  finish: Callable[[], dict] = dict  # after the measurement: more for the record


def measure(run: Run, seconds: float, report: Callable[[dict], None]) -> dict:
  """Returns images a second over rounds of turns that take `seconds` in all, and when they were.

  Args:
    seconds: 0: a single turn.
    report: gets the record as soon as it holds the speed.
  """
  first = timed(run, 1)
  turn = min(timed(run, 1), timed(run, 1)) if seconds else 1.0
  turns = max(1, min(1000, round(seconds / ROUNDS / turn)))
  began = time.time()
  rounds = ROUNDS if seconds > turn else 1
  rates = [turns * run.images / timed(run, turns) for _ in range(rounds)]
  window = [began, time.time()]
  speed = statistics.median(rates)
  record = {
    "images_per_second": round(speed, 3 if speed < 100 else 1),
    "rounds": [round(rate, 3) for rate in rates],
    "turn_ms": round(1e3 * run.images / speed, 3),
    "images_a_turn": run.images,
    "compile_seconds": round(first, 1),  # unless the work was compiled before its first turn
    "window": window,
    **run.details,
  }
  report(record)
  return record | run.finish()


def timed(run: Run, turns: int) -> float:
  """The seconds of so many turns, until the device has finished them."""
  began, last = time.perf_counter(), None
  for _ in range(turns):
    last = run.advance()
  run.wait(last)
  return time.perf_counter() - began


def covered(intervals: list[tuple[float, float]]) -> float:
  """The fraction of the time from the first start to the last end that at least one interval covers."""
  intervals = sorted(intervals)
  busy, end = 0.0, intervals[0][0]
  for start, stop in intervals:
    busy += max(0.0, stop - max(start, end))
    end = max(end, stop)
  return busy / max(end - intervals[0][0], 1e-12)
