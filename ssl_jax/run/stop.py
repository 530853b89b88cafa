"""Handles Ctrl-C, SIGTERM, preemption and the end of the terminal (SIGHUP).

They become a stop request that is polled between steps, so that the state can be saved first.
"""

from __future__ import annotations

import itertools
import os
import signal

import jax
from jax.experimental import multihost_utils

_polls = itertools.count(1)  # shared by all loops of the process: every process polls equally often


class Stopped(Exception):
  """A run or task ended early because of a stop request. Its state is saved: the same command resumes it."""


class Stop:
  """Turns the first SIGTERM, SIGINT or SIGHUP into a stop request; the second ends the process immediately.

  A further SIGHUP does nothing, because a terminal that closes may send several. A SIGHUP that is ignored
  already, as under nohup, stays ignored.

  If there are several processes, it is enough that one of them receives the signal: JAX's preemption service,
  which handles SIGTERM since `parallel.start`, agrees with the others on the poll at which all of them stop.
  """

  def __enter__(self):
    self._name, self._shared = "", jax.process_count() > 1
    numbers = [signal.SIGINT] if self._shared else [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
      numbers.append(signal.SIGHUP)
    self._old = {number: signal.signal(number, self._on) for number in numbers}
    return self

  def poll(self) -> str:
    """Returns the reason to stop now, or "".

    If there are several processes, all must poll in lockstep: once in every step of a loop that they share.
    """
    if self._shared and multihost_utils.reached_preemption_sync_point(next(_polls)):
      return self._name or "a request to one of the processes"
    return "" if self._shared else self._name

  def _on(self, number, frame):
    if self._name:
      if number == signal.SIGHUP:
        return
      os._exit(128 + number)
    self._name = signal.Signals(number).name
    if self._shared:
      os.kill(os.getpid(), signal.SIGTERM)

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)
