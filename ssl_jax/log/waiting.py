"""Says what a command is doing while it does not print results: at once, and then every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

EVERY = 10.0  # seconds between two lines


def notice(text: str) -> None:
  """Prints a line to stderr, so that the results on stdout stay by themselves."""
  print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(what: str, *, say: Callable[[str], None] = notice, every: float = EVERY) -> Iterator[None]:
  """Context manager: says `what` is being done, such as "compiling", and repeats it until it is done.

  Args:
    what: begins each line; the seconds so far follow.
    say: prints a line; called from a thread of its own.
  """
  say(f"{what} ...")
  with repeating(lambda seconds: say(f"{what}: {seconds:.0f} s"), every=every):
    yield


@contextlib.contextmanager
def repeating(tell: Callable[[float], None], *, every: float = EVERY) -> Iterator[None]:
  """Context manager: calls `tell(seconds since the beginning)` every few seconds from a thread of its own."""
  done, began = threading.Event(), time.monotonic()

  def repeat() -> None:
    while not done.wait(every):
      tell(time.monotonic() - began)

  thread = threading.Thread(target=repeat, name="waiting", daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
