"""Reports the progress of a run to the terminal, to JSONL files and to boards. Only process 0 reports."""

from __future__ import annotations

import json
import math
import os
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import cast

import jax
import rich.console
import rich.progress

from ssl_jax.log.boards import Board
from ssl_jax.log.run_log import METRICS, ONLINE, append, clock
from ssl_jax.log.waiting import EVERY, repeating


class Console:
  """Context manager that writes rows of metrics to `workdir/metrics.jsonl` and to the terminal.

  A terminal shows a progress bar. If the output is a pipe or a file, each row is one line of plain text. In
  processes other than process 0 the methods do nothing.
  """

  def __init__(self, workdir: pathlib.Path, *, start: int, total: int, boards: Sequence[Board] = ()):
    """Opens the files and starts the progress bar.

    Args:
      workdir: the folder of the run.
      start: the step that the run starts or resumes from. Rows of later steps are removed from the files;
        they are there if the run was killed some steps after its last checkpoint.
      total: the number of the last step.
      boards: further destinations of the rows, which are closed at the end.
    """
    self._enabled = jax.process_index() == 0
    if not self._enabled:
      return
    for name in (METRICS, ONLINE):
      _drop_rows_after(workdir / name, start)
    self._file = (workdir / METRICS).open("a", buffering=1)
    self._online, self._boards = workdir / ONLINE, boards
    self._terminal = rich.console.Console(highlight=False, soft_wrap=True)
    self._bar = _bar(self._terminal)
    self._task = self._bar.add_task("train", total=total, completed=start, figures="")
    self._first = (start, time.monotonic())
    self._bar.start()

  def note(self, text: str) -> None:
    """Prints a message above the progress bar."""
    if self._enabled:
      self._bar.console.print(text, markup=False)

  def step(self, step: int) -> None:
    """Moves the progress bar: `step` steps are done."""
    if self._enabled:
      self._bar.update(self._task, completed=step)

  def row(self, row: dict) -> None:
    """Writes a row of metrics of the steps since the last row; `row["step"]` is the last of these steps."""
    if not self._enabled:
      return
    self._file.write(json.dumps(row) + "\n")
    self._to_boards(row)
    figures = (
      f"loss {row['loss']:.4f}  {row['images_per_second']:.0f} images/s "
      f"(input alone {row['input_images_per_second']:.0f}, step alone {row['step_images_per_second']:.0f}), "
      f"waiting {row['waiting_fraction']:.0%}"
    )
    self._bar.update(self._task, figures=figures)
    if not self._terminal.is_terminal:
      self.note(
        f"step {row['step']}/{self._bar.tasks[0].total:.0f}  epoch {row['epoch']:.2f}  {figures}  "
        f"lr {row['learning_rate']:.4g}  time left {self._left(row['step'])}"
      )

  def score(self, row: dict, text: str) -> None:
    """Writes a row of scores of the network at `row["step"]`, and prints `text`."""
    if self._enabled:
      append(self._online, row)
      self._to_boards(row)
      self.note(text)

  def _to_boards(self, row: dict) -> None:
    for board in self._boards:
      board.write(dict(row))

  def _left(self, step: int) -> str:
    """The time until the last step, at the mean speed since this process started to train."""
    (start, since), total = self._first, cast(float, self._bar.tasks[0].total)
    seconds = (time.monotonic() - since) / max(step - start, 1) * (total - step)
    return clock(seconds)

  def __enter__(self) -> Console:
    return self

  def __exit__(self, *_) -> None:
    if self._enabled:
      self._bar.stop()
      self._file.close()
      for board in self._boards:
        board.close()


class Progress:
  """Context manager that reports the progress of a task: call `progress(done, total, loss)`, or with a text
  in place of the loss.

  A terminal shows a progress bar; other outputs get a line at the first call and then one every ten seconds,
  also while nothing is called. A `total` of 0 means unknown.
  """

  def __init__(self, name: str, *, every: float = EVERY):
    self._terminal = rich.console.Console(highlight=False, soft_wrap=True)
    self._bar = _bar(self._terminal, quiet=jax.process_index() > 0)
    self._task = self._bar.add_task(name, total=None, figures="")
    self._name, self._figures, self._lock = name, "", threading.Lock()
    self._plain = not self._terminal.is_terminal and jax.process_index() == 0
    self._repeat = repeating(self._tell, every=every)

  def __call__(self, done: int, total: int, loss: float | str) -> None:
    figures = loss if isinstance(loss, str) else f"{loss:.4f}"
    self._bar.update(self._task, completed=done, total=total or None, figures=figures)
    first = not self._figures
    self._figures = f"{done} of {total}, {figures}" if total else f"{done} {figures}"
    if first:
      self._print(self._figures)

  def _tell(self, seconds: float) -> None:
    self._print(f"{self._figures or 'reading and compiling'} ({clock(seconds)})")

  def _print(self, text: str) -> None:
    if self._plain:
      with self._lock:
        print(f"{self._name}: {text}", flush=True)

  def __enter__(self) -> Progress:
    self._bar.start()
    self._repeat.__enter__()
    return self

  def __exit__(self, *_) -> None:
    self._repeat.__exit__(None, None, None)
    self._bar.stop()


def _bar(terminal: rich.console.Console, *, quiet: bool = False) -> rich.progress.Progress:
  columns = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(bar_width=20),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
    rich.progress.TimeRemainingColumn(),
    rich.progress.TextColumn("{task.fields[figures]}"),
  )
  return rich.progress.Progress(
    *columns, console=terminal, disable=quiet or not terminal.is_terminal, refresh_per_second=2
  )


def _drop_rows_after(path: pathlib.Path, step: int) -> None:
  """Removes the rows of later steps from a JSONL file."""
  rows = path.read_text().splitlines(keepends=True) if path.exists() else []
  kept = [row for row in rows if _step(row) <= step]
  if kept != rows:  # replaced atomically; if it is a link, then the link and not the file that it leads to
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.write_text("".join(kept))
    os.replace(unfinished, path)


def _step(row: str) -> float:
  """The step of a line of the JSONL file; infinity if the line is not valid."""
  try:
    return json.loads(row)["step"]
  except (ValueError, KeyError):  # the last line of a killed run, which is incomplete
    return math.inf
