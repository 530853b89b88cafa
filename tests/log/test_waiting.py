"""Something is said at once and then regularly, also while nothing reports progress."""

import time

from ssl_jax.log.console import Progress
from ssl_jax.log.waiting import waiting


def test_it_says_what_is_done_at_once_and_again():
  said = []
  with waiting("compiling", say=said.append, every=0.05):
    assert said == ["compiling ..."]
    time.sleep(0.3)
  count = len(said)
  assert count > 2 and all(line.startswith("compiling: ") for line in said[1:])
  time.sleep(0.15)
  assert len(said) == count


def test_an_error_ends_it_too():
  said = []
  try:
    with waiting("reading", say=said.append, every=0.02):
      raise ValueError("no")
  except ValueError:
    pass
  count = len(said)
  time.sleep(0.1)
  assert len(said) == count == 1


def test_progress_in_a_pipe_has_a_line_at_the_first_call_and_then_regularly(capsys):
  with Progress("knn", every=0.05) as progress:
    progress(8, 100, "images")
    progress(16, 100, 0.25)
    time.sleep(0.2)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "knn: 8 of 100, images"
  assert len(lines) > 2 and all(line.startswith("knn: 16 of 100, 0.2500 (0:00:0") for line in lines[1:])


def test_progress_says_something_before_the_first_call(capsys):
  with Progress("knn", every=0.05):
    time.sleep(0.15)
  assert "knn: reading and compiling (0:00:00)" in capsys.readouterr().out
