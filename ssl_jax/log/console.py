"""What a run says while it runs: a progress line, JSONL, TensorBoard. Only process 0 speaks."""

from __future__ import annotations

import json
import math
import pathlib
import time

import jax
import rich.console
import rich.progress

from ssl_jax.log.run_log import METRICS, clock


class Console:
  """Writes rows of figures to `workdir/metrics.jsonl` and to the terminal.

  A terminal shows a live bar; a pipe or file gets one plain line a row.
  """

  def __init__(self, workdir: pathlib.Path, *, start: int, total: int, tensorboard: bool = False):
    """Rows of steps after `start`, left by a run that got further before it was killed, are dropped."""
    self._speaks = jax.process_index() == 0
    if not self._speaks:
      return
    path = workdir / METRICS
    rows = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(row for row in rows if _step(row) <= start))
    self._file = path.open("a", buffering=1)
    self._board = _tensorboard(workdir) if tensorboard else None
    self._terminal = rich.console.Console(highlight=False, soft_wrap=True)
    self._bar = _bar(self._terminal)
    self._task = self._bar.add_task("train", total=total, completed=start, figures="")
    self._first = (start, time.monotonic())
    self._bar.start()

  def note(self, text: str) -> None:
    """One line for the reader."""
    if self._speaks:
      self._bar.console.print(text, markup=False)

  def step(self, step: int) -> None:
    """`step` steps are done."""
    if self._speaks:
      self._bar.update(self._task, completed=step)

  def row(self, row: dict) -> None:
    """Figures of the steps since the last row; `row["step"]` is the last of them."""
    if not self._speaks:
      return
    self._file.write(json.dumps(row) + "\n")
    for name, value in row.items() if self._board else ():
      self._board.add_scalar(name, value, row["step"])
    figures = (
      f"loss {row['loss']:.4f}  {row['images_per_second']:.0f} images/s "
      f"(input alone {row['input_images_per_second']:.0f}, step alone {row['step_images_per_second']:.0f}), "
      f"waited {row['waiting_fraction']:.0%}"
    )
    self._bar.update(self._task, figures=figures)
    if not self._terminal.is_terminal:
      self.note(
        f"step {row['step']}/{self._bar.tasks[0].total:.0f}  epoch {row['epoch']:.2f}  {figures}  "
        f"lr {row['learning_rate']:.4g}  left {self._left(row['step'])}"
      )

  def _left(self, step: int) -> str:
    start, since = self._first
    seconds = (time.monotonic() - since) / max(step - start, 1) * (self._bar.tasks[0].total - step)
    return clock(seconds)

  def __enter__(self) -> Console:
    return self

  def __exit__(self, *_) -> None:
    if self._speaks:
      self._bar.stop()
      self._file.close()
      if self._board:
        self._board.close()


class Progress:
  """Of a task: `progress(done, total, loss)`. A live bar on a terminal; elsewhere a line a minute."""

  def __init__(self, name: str):
    self._terminal = rich.console.Console(highlight=False, soft_wrap=True)
    self._bar = _bar(self._terminal, quiet=jax.process_index() > 0)
    self._task = self._bar.add_task(name, total=None, figures="")
    self._name, self._said = name, time.monotonic()

  def __call__(self, done: int, total: int, loss: float) -> None:
    self._bar.update(self._task, completed=done, total=total or None, figures=f"{loss:.4f}")
    if not self._terminal.is_terminal and jax.process_index() == 0 and time.monotonic() - self._said > 60:
      self._said = time.monotonic()
      self._terminal.print(
        f"{self._name}: {done} of {total or 'an unknown number'}, {loss:.4f}", markup=False
      )

  def __enter__(self) -> Progress:
    self._bar.start()
    return self

  def __exit__(self, *_) -> None:
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


def _step(row: str) -> float:
  try:
    return json.loads(row)["step"]
  except (ValueError, KeyError):  # the last line of a killed run
    return math.inf


def _tensorboard(workdir: pathlib.Path):
  try:
    import tensorboardX
  except ImportError as error:
    raise ValueError(
      "config.tensorboard is set, but tensorboardX is not installed; pip install 'ssl_jax[tensorboard]'"
    ) from error
  return tensorboardX.SummaryWriter(str(workdir))
