"""Several environments side by side, in this process or in others."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.control.environment import Environment, Moment, Setup


class Environments:
  """A number of equal environments. A context manager: at its end, processes and renderers are closed."""

  def __init__(self, setup: Setup, count: int, processes: int = 0):
    """
    Args:
      processes: how many other processes simulate and render; 0: this process does.
    Raises: as Environment.
    """
    processes = min(processes, count)
    self._shares = [range(first, count, max(processes, 1)) for first in range(max(processes, 1))]
    self._count, self._parts = count, []
    try:
      for share in self._shares:
        self._parts.append((_Process if processes else _Here)(setup, len(share)))
      self.actions: int = self._call([("actions", ()) for _ in self._shares])[0]
    except BaseException:
      self.close()
      raise

  def reset(self, seeds: Sequence[int], worlds: Sequence[str]) -> list[Moment]:
    """Begins an episode in each of the first len(seeds) environments, see `Environment.reset`."""
    return self._each("reset", list(zip(seeds, worlds, strict=True)))

  def step(self, actions: np.ndarray) -> list[Moment]:
    """Does one action f32[n, A] in each of the first n environments; they step at the same time."""
    return self._each("step", [(action,) for action in actions])

  def close(self) -> None:
    """Ends the processes."""
    for part in self._parts:
      part.close()
    self._parts = []

  def __enter__(self) -> Environments:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _each(self, what: str, arguments: list[tuple]) -> list[Moment]:
    calls = [(what, [arguments[i] for i in share if i < len(arguments)]) for share in self._shares]
    found: list[Any] = [None] * len(arguments)
    for share, moments in zip(self._shares, self._call(calls)):
      for place, moment in zip(share, moments):
        found[place] = moment
    return found

  def _call(self, calls: list[tuple[str, Any]]) -> list[Any]:
    for part, (what, arguments) in zip(self._parts, calls):
      part.send(what, arguments)
    return [part.receive() for part in self._parts]


class _Here:
  """Environments of this process."""

  def __init__(self, setup: Setup, count: int):
    self._environments = []
    try:
      for _ in range(count):
        self._environments.append(Environment(setup))
    except BaseException:
      self.close()
      raise

  def send(self, what: str, arguments: Any) -> None:
    if what == "actions":
      self._answer = self._environments[0].actions
    else:
      self._answer = [getattr(e, what)(*given) for e, given in zip(self._environments, arguments)]

  def receive(self) -> Any:
    return self._answer

  def close(self) -> None:
    for environment in self._environments:
      environment.close()
    self._environments = []


class _Process:
  """Environments of another process."""

  def __init__(self, setup: Setup, count: int):
    context = multiprocessing.get_context("spawn")  # not forked: the libraries of this process have threads
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, setup, count), daemon=True)
    self._process.start()
    theirs.close()

  def send(self, what: str, arguments: Any) -> None:
    self._pipe.send((what, arguments))

  def receive(self) -> Any:
    try:
      answer = self._pipe.recv()
    except EOFError as error:
      raise RuntimeError(
        "a process with environments ended unexpectedly, perhaps for want of memory; use fewer processes"
      ) from error
    if isinstance(answer, Exception):
      raise answer
    return answer

  def close(self) -> None:
    try:
      self._pipe.send(("close", ()))
    except OSError:  # it has ended already
      pass
    self._process.join(10)
    if self._process.is_alive():
      self._process.terminate()
    self._pipe.close()


def _serve(pipe: Any, setup: Setup, count: int) -> None:
  """Answers calls until the other side closes."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C; the other process decides when to stop
  here, failure = None, None
  try:
    here = _Here(setup, count)
  except Exception as error:
    failure = _plain(error)
  while True:
    try:
      what, arguments = pipe.recv()
    except EOFError:
      what = "close"
    if what == "close":
      break
    try:
      if failure or here is None:
        raise failure or RuntimeError("no environments")
      here.send(what, arguments)
      pipe.send(here.receive())
    except Exception as error:
      pipe.send(_plain(error))
  if here is not None:
    here.close()


def _plain(error: Exception) -> Exception:
  """The error as one that can be sent to another process."""
  kind = next((kind for kind in (ImportError, ValueError) if isinstance(error, kind)), RuntimeError)
  return kind(str(error))
