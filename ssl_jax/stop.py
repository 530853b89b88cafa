"""Ctrl-C and SIGTERM as a wish that long work looks at, so that it can save first."""

from __future__ import annotations

import os
import signal


class Stop:
  """Turns the first SIGTERM or SIGINT into `requested`; the second ends the process at once."""

  def __enter__(self):
    self.requested = ""
    self._old = {number: signal.signal(number, self._on) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def _on(self, number, frame):
    if self.requested:
      os._exit(128 + number)
    self.requested = signal.Signals(number).name

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)
