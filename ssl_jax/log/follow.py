"""Follows a run by reading the files in its folder, while it runs or afterwards."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import rich.console
import rich.live
import rich.table
import rich.text

from ssl_jax.log.output import closed_by_reader
from ssl_jax.log.run_log import METRICS, ONLINE, STARTS, clock, lines

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48  # of a curve, in characters
SHOWN = (
  "epoch",
  "loss",
  "images_per_second",
  "waiting_fraction",
  "learning_rate",
)  # shown first, in this order; the other metrics follow in alphabetical order
HIDDEN = ("step", "input_images_per_second", "step_images_per_second")
SILENT = 5  # a run without a new row for so many times the usual interval has probably stopped


def watch(workdir: str | pathlib.Path, *, once: bool = False, interval: float = 1.0) -> None:
  """Shows the progress, metrics and evaluations of the run in `workdir` until its last step.

  A terminal shows one table, which is updated. A pipe or file gets one line of plain text per row of metrics,
  until the reader of the pipe has gone.

  Args:
    once: show the current state and return.
    interval: the seconds between two reads of the files.
  Raises: ValueError if `workdir` does not exist, or if `once` is set and the run has written no row yet.
  """
  folder = pathlib.Path(workdir)
  if not folder.is_dir():
    raise ValueError(f"--workdir={workdir} is not an existing folder; give the --workdir of `ssl-jax train`")
  if once and not (folder / METRICS).exists():
    raise ValueError(
      f"--workdir={workdir} has no {METRICS} yet; without --once, `ssl-jax watch` waits for it"
    )
  terminal = rich.console.Console(highlight=False, soft_wrap=True)
  snapshot = _read(folder)
  if terminal.is_terminal:
    with rich.live.Live(_view(folder, snapshot), console=terminal, auto_refresh=False) as live:
      while not (once or snapshot.done):
        time.sleep(interval)
        snapshot = _read(folder)
        live.update(_view(folder, snapshot), refresh=True)
    return
  printed = snapshot.rows[-2]["step"] if once and len(snapshot.rows) > 1 else 0
  while True:
    for row in snapshot.rows:
      if row["step"] > printed:
        terminal.print(_line(row, snapshot.total), markup=False)
        printed = row["step"]
    if once or snapshot.done or closed_by_reader():
      return
    time.sleep(interval)
    snapshot = _read(folder)


class Snapshot(NamedTuple):
  """The content of a run's files at one moment."""

  rows: list[dict[str, float]]  # of metrics
  total: int  # steps of the run; 0 if unknown
  batch_size: int  # 0 if unknown
  quiet: float  # seconds since the last row was written

  @property
  def done(self) -> bool:
    return bool(self.rows) and 0 < self.total <= self.rows[-1]["step"]


def _read(folder: pathlib.Path) -> Snapshot:
  rows, starts = lines(folder / METRICS), lines(folder / STARTS)
  return Snapshot(
    rows,
    starts[-1]["total_steps"] if starts else 0,
    starts[-1]["config"]["batch_size"] if starts else 0,
    time.time() - (folder / METRICS).stat().st_mtime if rows else 0.0,
  )


def _line(row: dict[str, float], total: int) -> str:
  return (
    f"step {row['step']}"
    + (f"/{total}" if total else "")
    + "  "
    + "  ".join(f"{name.replace('_', ' ')} {_number(name, row[name])}" for name in _fields(row))
  )


def _view(folder: pathlib.Path, snapshot: Snapshot) -> rich.table.Table:
  rows, total = snapshot.rows, snapshot.total
  table = rich.table.Table(box=None, show_header=False, title=str(folder), title_justify="left")
  if not rows:
    table.add_row(f"waiting for the first row of {METRICS}")
    return table
  row = rows[-1]
  table.add_row("step", f"{row['step']:,}" + (f" of {total:,}, {row['step'] / total:.0%}" if total else ""))
  table.add_row("time left", _left(snapshot))
  for name in _fields(row):
    curve = _curve([r[name] for r in rows if name in r]) if name not in ("epoch", "learning_rate") else ""
    table.add_row(name.replace("_", " "), rich.text.Text(f"{_number(name, row[name]):10} {curve}"))
  scores = lines(folder / ONLINE)
  if scores:  # the first one is the main result
    name = next(name for name in scores[-1] if name not in ("step", "epoch"))
    values = [100 * score[name] for score in scores if name in score]
    drawn = f"{values[-1]:.1f} %".ljust(10)
    table.add_row(name.replace("_", " "), rich.text.Text(f"{drawn} {_curve(values)}"))
  for path in sorted((folder / "evaluations").glob("step*/*.json"), key=lambda path: path.stat().st_mtime):
    table.add_row(rich.text.Text(f"{path.parent.name} {path.stem}"), _headline(path))
  return table


def _left(snapshot: Snapshot) -> str:
  """The time left at the speed of the last rows, or a warning if there has been no new row for long."""
  if snapshot.done:
    return "none: the run is finished"
  recent, last = snapshot.rows[-10:], snapshot.rows[-1]["step"]
  pace = sum(row["images_per_second"] for row in recent) / len(recent)
  if not snapshot.total or not pace:
    return "unknown"
  step = snapshot.batch_size / pace
  usual = step * (last - snapshot.rows[-2]["step"] if len(snapshot.rows) > 1 else last)
  if snapshot.quiet > max(SILENT * usual, 60):
    return f"no row for {clock(snapshot.quiet)}, usually one every {clock(usual)}: has the run stopped?"
  return clock(max((snapshot.total - last) * step - snapshot.quiet, 0))


def _fields(row: dict[str, float]) -> list[str]:
  return [name for name in (*SHOWN, *sorted(set(row) - set(SHOWN) - set(HIDDEN))) if name in row]


def _number(name: str, value: float) -> str:
  return (
    f"{value:.0%}"
    if name.endswith("fraction")
    else f"{value:,.0f}"
    if name.endswith("per_second")
    else f"{value:.4g}"
  )


def _headline(path: pathlib.Path) -> str:
  try:
    name, value = next(iter(json.loads(path.read_text())["scalars"].items()))
  except (ValueError, KeyError, StopIteration):  # the file is being written
    return ""
  return f"{name.replace('_', ' ')} {100 * value:.1f} %"


def _curve(values: Sequence[float]) -> str:
  """Draws `values` as a line of at most WIDTH blocks, whose heights span the range of the drawn numbers.

  Each block is the mean of one of the equal parts that `values` is divided into.
  """
  parts = min(WIDTH, len(values))
  edges = [i * len(values) // parts for i in range(parts + 1)]
  means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
  low, high = min(means), max(means)
  return "".join(
    BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] if high > low else BLOCKS[0]
    for value in means
  )
