"""Output whose reader goes: it is discarded, stderr is told once, and other errors are still raised."""

import contextlib
import errno
import io
import os
import sys

import pytest
import rich.console

from ssl_jax.log.follow import watch
from ssl_jax.log.output import Output, closed_by_reader, continue_if_closed
from tests.view.report.runs import write_run


@contextlib.contextmanager
def piped():
  """Makes stdout a pipe; returns the descriptor of the end that reads."""
  read, write = os.pipe()
  with os.fdopen(write, "w") as stream, contextlib.redirect_stdout(stream):
    yield read


def test_what_nobody_reads_is_discarded_and_said_once(capsys):
  with piped() as pipe, continue_if_closed("nobody reads"):
    print("first", flush=True)
    assert os.read(pipe, 100) == b"first\n" and not closed_by_reader()
    os.close(pipe)
    for _ in range(2):
      print("second", flush=True)
      rich.console.Console().print("third")
    os.write(sys.stdout.fileno(), b"fourth")  # by a library that has no Python stream
    assert closed_by_reader()
  assert capsys.readouterr().err == "nobody reads\n"


def test_buffered_output_is_discarded_at_the_end():
  with piped() as pipe, continue_if_closed():
    os.close(pipe)
    print("buffered until the end")


def test_watching_ends_when_nobody_reads(tmp_path):
  with piped() as pipe, continue_if_closed():
    os.close(pipe)
    watch(write_run(tmp_path / "run", rows=3), interval=0.01)  # of a run that does not end


def test_other_errors_are_raised():
  class Full(io.StringIO):
    def write(self, text):
      raise OSError(errno.ENOSPC, "No space left on device")

  with pytest.raises(OSError, match="No space left"):
    Output(Full()).write("text")
