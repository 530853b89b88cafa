"""Ctrl-C, SIGTERM and preemption as a wish that long work looks at between two steps, so that it can save
first.
"""

from __future__ import annotations

import itertools
import os
import signal

import jax
from jax.experimental import multihost_utils

_polls = itertools.count(1)  # every process looks equally often, in all its works together


class Stopped(Exception):
  """Work ended before its end because it was asked to. What it had is saved: the same command goes on."""


class Stop:
  """Turns the first SIGTERM or SIGINT into a wish to stop; the second ends the process at once.

  Of several processes it is enough that one is told: jax's preemption service has caught SIGTERM since
    `parallel.start` and agrees
  with the others on the look at which all of them stop.
  """

  def __enter__(self):
    self._name, self._shared = "", jax.process_count() > 1
    numbers = (signal.SIGINT,) if self._shared else (signal.SIGTERM, signal.SIGINT)
    self._old = {number: signal.signal(number, self._on) for number in numbers}
    return self

  def poll(self) -> str:
    """Why to stop now, or "". Several processes must look in step: once in every step of a loop that they
    share.
    """
    if self._shared and multihost_utils.reached_preemption_sync_point(next(_polls)):
      return self._name or "a notice to one of the processes"
    return "" if self._shared else self._name

  def _on(self, number, frame):
    if self._name:
      os._exit(128 + number)
    self._name = signal.Signals(number).name
    if self._shared:
      os.kill(os.getpid(), signal.SIGTERM)

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)
