"""Following a run: what is said of one that runs, stands still, is done, or is not there."""

import io
import os
import threading
import time

import pytest
import rich.console

from ssl_jax.log import follow as module
from ssl_jax.log.follow import watch
from ssl_jax.log.run_log import clock, lines
from tests.view.report.runs import write_lines, write_run


def drawn(folder) -> str:
  console = rich.console.Console(file=io.StringIO(), width=120)
  console.print(module._view(folder, module._look(folder)))
  return console.file.getvalue()


def cut(folder, count: int) -> None:
  write_lines(folder / "metrics.jsonl", lines(folder / "metrics.jsonl")[:count])


def test_a_pipe_gets_a_line_a_row_until_the_last_step(tmp_path, capsys):
  folder = write_run(tmp_path / "run")
  rows = lines(folder / "metrics.jsonl")
  cut(folder, 2)

  def go_on():
    for count in range(3, 7):
      time.sleep(0.05)
      write_lines(folder / "metrics.jsonl", rows[:count])

  running = threading.Thread(target=go_on)
  running.start()
  watch(folder, interval=0.01)
  running.join()
  said = capsys.readouterr().out.splitlines()
  assert [line.split()[1] for line in said] == [f"{step}/60" for step in range(10, 70, 10)]
  assert (
    "loss 0.3333" in said[-1]
    and "images per second 500" in said[-1]
    and "waiting fraction 2%" in said[-1]
    and "contrast accuracy 0.6" in said[-1]
  )


def test_once_says_the_last_row_and_leaves(tmp_path, capsys):
  folder = write_run(tmp_path / "run", rows=4)
  watch(folder, once=True)
  assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["40/60"]


def test_a_terminal_sees_progress_curve_time_left_and_evaluations(tmp_path):
  folder = write_run(tmp_path / "run", rows=5)
  shown = drawn(folder)
  for said in (
    "50 of 60, 83%",
    "loss",
    "█",
    "step60 knn-moco",
    "top1 50.0 %",
    "0:00:01",
  ):  # 10 steps of 64 images at 500 a second
    assert said in shown, said


def test_a_run_that_is_done_or_silent_or_has_not_begun_says_so(tmp_path):
  folder = write_run(tmp_path / "run")
  assert "it is done" in drawn(folder)
  cut(folder, 5)
  os.utime(folder / "metrics.jsonl", (time.time() - 600,) * 2)
  assert "no row for 0:10:0" in drawn(folder) and "has it stopped?" in drawn(folder)
  (folder / "metrics.jsonl").unlink()
  assert "waiting for the first row" in drawn(folder)


def test_a_run_of_before_there_was_a_record_of_starts_can_be_watched(tmp_path):
  folder = write_run(tmp_path / "run")
  (folder / "starts.jsonl").unlink()
  assert "not known" in drawn(folder)


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path):
  with pytest.raises(ValueError, match="there is no such folder"):
    watch(tmp_path / "nowhere")
  with pytest.raises(ValueError, match="holds no metrics.jsonl yet"):
    watch(tmp_path, once=True)


def test_a_curve_spans_its_range_and_a_flat_one_is_low():
  assert module._curve([0, 1, 2, 3]) == "▁▃▆█" and module._curve([5.0] * 3) == "▁▁▁"
  assert len(module._curve(list(range(1000)))) == module.WIDTH


@pytest.mark.parametrize("seconds, said", [(0, "0:00:00"), (59.7, "0:01:00"), (3725, "1:02:05")])
def test_a_clock_carries(seconds, said):
  assert clock(seconds) == said
