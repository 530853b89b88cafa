"""Keeps a command running after the reader of its output has gone, as in `ssl-jax train | head`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)  # a pipe without a reader; a terminal that was closed


class Output:
  """A text stream that discards what is written once its reader has gone, instead of raising OSError."""

  def __init__(self, stream: TextIO, notice: str = ""):
    """Wraps `stream`; `notice` is printed to stderr when its reader has gone."""
    self._stream, self._notice, self.closed_by_reader = stream, notice, False

  def write(self, text: str) -> int:
    with self._tolerant():
      return self._stream.write(text)
    return len(text)

  def writelines(self, texts: Iterable[str]) -> None:
    with self._tolerant():
      self._stream.writelines(texts)

  def flush(self) -> None:
    with self._tolerant():
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  @contextlib.contextmanager
  def _tolerant(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      if error.errno not in GONE:
        raise
      first, self.closed_by_reader = not self.closed_by_reader, True
      with contextlib.suppress(OSError, ValueError):  # a stream without a file descriptor
        # What is still buffered, and what libraries write to the descriptor, is discarded too.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
      if first and self._notice:
        print(self._notice, file=sys.stderr, flush=True)


@contextlib.contextmanager
def continue_if_closed(notice: str = "") -> Iterator[None]:
  """Context manager: what is printed inside is discarded once its reader has gone.

  Args:
    notice: the line that stderr gets when the reader of stdout has gone; "": none.
  """
  before = sys.stdout, sys.stderr
  found = tuple(
    stream if stream is None or isinstance(stream, Output) else Output(stream, text)
    for stream, text in zip(before, (notice, ""))
  )
  sys.stdout, sys.stderr = found  # pyright: ignore[reportAttributeAccessIssue]
  try:
    yield
  finally:
    for stream in found:
      if isinstance(stream, Output):
        stream.flush()
    sys.stdout, sys.stderr = before


def closed_by_reader() -> bool:
  """Whether the reader of stdout has gone, inside `continue_if_closed`."""
  return isinstance(sys.stdout, Output) and sys.stdout.closed_by_reader
