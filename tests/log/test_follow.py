"""`ssl-jax watch`: what it shows of a run that is active, stalled, finished or missing."""

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
  console.print(module._view(folder, module._read(folder)))
  return console.file.getvalue()


def cut(folder, count: int) -> None:
  write_lines(folder / "metrics.jsonl", lines(folder / "metrics.jsonl")[:count])


def test_a_pipe_gets_one_line_per_row_until_the_last_step(tmp_path, capsys):
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
  printed = capsys.readouterr().out.splitlines()
  assert [line.split()[1] for line in printed] == [f"{step}/60" for step in range(10, 70, 10)]
  assert (
    "loss 0.3333" in printed[-1]
    and "images per second 500" in printed[-1]
    and "waiting fraction 2%" in printed[-1]
    and "contrast accuracy 0.6" in printed[-1]
  )


def test_once_prints_the_last_row_and_returns(tmp_path, capsys):
  folder = write_run(tmp_path / "run", rows=4)
  watch(folder, once=True)
  assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["40/60"]


def test_a_terminal_shows_progress_curve_time_left_and_evaluations(tmp_path, monkeypatch):
  folder = write_run(tmp_path / "run", rows=5)
  ahead = time.time() + 600
  os.utime(folder / "metrics.jsonl", (ahead, ahead))
  monkeypatch.setattr(time, "time", lambda: ahead)
  shown = drawn(folder)
  for text in (
    "50 of 60, 83%",
    "loss",
    "█",
    "step60 knn-moco",
    "top1 50.0 %",
    "0:00:01",
  ):  # 10 steps of 64 images at 500 a second
    assert text in shown, text


def test_finished_stalled_and_new_runs_are_reported_as_such(tmp_path):
  folder = write_run(tmp_path / "run")
  assert "the run is finished" in drawn(folder)
  cut(folder, 5)
  os.utime(folder / "metrics.jsonl", (time.time() - 600,) * 2)
  assert "no row for 0:10:0" in drawn(folder) and "has the run stopped?" in drawn(folder)
  (folder / "metrics.jsonl").unlink()
  assert "waiting for the first row" in drawn(folder)


def test_a_run_without_starts_jsonl_can_be_watched(tmp_path):
  folder = write_run(tmp_path / "run")
  (folder / "starts.jsonl").unlink()
  assert "unknown" in drawn(folder)


def test_a_missing_or_empty_folder_is_refused(tmp_path):
  with pytest.raises(ValueError, match="is not an existing folder"):
    watch(tmp_path / "nowhere")
  with pytest.raises(ValueError, match="has no metrics.jsonl yet"):
    watch(tmp_path, once=True)


def test_a_curve_spans_the_range_of_its_values_and_a_flat_curve_is_low():
  assert module._curve([0, 1, 2, 3]) == "▁▃▆█" and module._curve([5.0] * 3) == "▁▁▁"
  assert len(module._curve(list(range(1000)))) == module.WIDTH


@pytest.mark.parametrize("seconds, text", [(0, "0:00:00"), (59.7, "0:01:00"), (3725, "1:02:05")])
def test_clock_carries_seconds_and_minutes(seconds, text):
  assert clock(seconds) == text


def test_scores_during_the_training_are_shown(tmp_path):
  folder = write_run(tmp_path / "run", rows=5)
  rows = [{"step": 10 * i, "epoch": float(i), "knn_top1": 0.1 * i, "knn_top5": 0.9} for i in (1, 2, 3)]
  write_lines(folder / "online.jsonl", rows)
  (line,) = [line for line in drawn(folder).splitlines() if "knn top1" in line]
  assert "30.0 %" in line and "▁" in line and "█" in line
