"""Follow a run from its folder, while it runs or afterwards."""

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

from ssl_jax.log.run_log import METRICS, STARTS, clock, lines

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48  # of the curve, characters
SHOWN = (
  "epoch",
  "loss",
  "images_per_second",
  "waiting_fraction",
  "learning_rate",
)  # first, in this order; then what else the method says
HIDDEN = ("step", "input_images_per_second", "step_images_per_second")
SILENT = 5  # a run that says nothing for so many times its usual interval has probably stopped


def watch(workdir: str | pathlib.Path, *, once: bool = False, interval: float = 1.0) -> None:
  """Shows progress, figures and evaluations of the run in `workdir` until its last step.

  A terminal shows one table that changes; a pipe or file gets a plain line a row.
  Args:
    once: say how far it is and return. interval: seconds between two looks.
  Raises: ValueError if there is no such folder, or with `once` no row in it.
  """
  folder = pathlib.Path(workdir)
  if not folder.is_dir():
    raise ValueError(f"--workdir={workdir}: there is no such folder; name the --workdir of `ssl-jax train`")
  if once and not (folder / METRICS).exists():
    raise ValueError(f"--workdir={workdir} holds no metrics.jsonl yet; without --once this waits for it")
  terminal = rich.console.Console(highlight=False, soft_wrap=True)
  seen = _look(folder)
  if terminal.is_terminal:
    with rich.live.Live(_view(folder, seen), console=terminal, auto_refresh=False) as live:
      while not (once or seen.done):
        time.sleep(interval)
        seen = _look(folder)
        live.update(_view(folder, seen), refresh=True)
    return
  said = seen.rows[-2]["step"] if once and len(seen.rows) > 1 else 0
  while True:
    for row in seen.rows:
      if row["step"] > said:
        terminal.print(_line(row, seen.total), markup=False)
        said = row["step"]
    if once or seen.done:
      return
    time.sleep(interval)
    seen = _look(folder)


class Seen(NamedTuple):
  """What the files said at one moment."""

  rows: list[dict[str, float]]
  total: int  # steps of the run; 0: not known
  batch_size: int  # 0: not known
  quiet: float  # seconds since the last row

  @property
  def done(self) -> bool:
    return bool(self.rows) and 0 < self.total <= self.rows[-1]["step"]


def _look(folder: pathlib.Path) -> Seen:
  rows, starts = lines(folder / METRICS), lines(folder / STARTS)
  return Seen(
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


def _view(folder: pathlib.Path, seen: Seen) -> rich.table.Table:
  rows, total = seen.rows, seen.total
  table = rich.table.Table(box=None, show_header=False, title=str(folder), title_justify="left")
  if not rows:
    table.add_row("waiting for the first row", f"of {METRICS}")
    return table
  row = rows[-1]
  table.add_row("step", f"{row['step']:,}" + (f" of {total:,}, {row['step'] / total:.0%}" if total else ""))
  table.add_row("left", _left(seen))
  for name in _fields(row):
    curve = _curve([r[name] for r in rows if name in r]) if name not in ("epoch", "learning_rate") else ""
    table.add_row(name.replace("_", " "), rich.text.Text(f"{_number(name, row[name]):10} {curve}"))
  for path in sorted((folder / "evaluations").glob("step*/*.json"), key=lambda path: path.stat().st_mtime):
    table.add_row(rich.text.Text(f"{path.parent.name} {path.stem}"), _headline(path))
  return table


def _left(seen: Seen) -> str:
  """By the pace of the last rows, or that there has been no row for long."""
  if seen.done:
    return "nothing: it is done"
  recent, last = seen.rows[-10:], seen.rows[-1]["step"]
  pace = sum(row["images_per_second"] for row in recent) / len(recent)
  if not seen.total or not pace:
    return "not known"
  step = seen.batch_size / pace
  usual = step * (last - seen.rows[-2]["step"] if len(seen.rows) > 1 else last)
  if seen.quiet > max(SILENT * usual, 60):
    return f"no row for {clock(seen.quiet)}, where one took {clock(usual)}: has it stopped?"
  return clock(max((seen.total - last) * step - seen.quiet, 0))


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
  except (ValueError, KeyError, StopIteration):  # being written
    return ""
  return f"{name.replace('_', ' ')} {100 * value:.1f} %"


def _curve(values: Sequence[float]) -> str:
  """The means of up to WIDTH equal parts of `values`, as blocks between the lowest and the highest."""
  parts = min(WIDTH, len(values))
  edges = [i * len(values) // parts for i in range(parts + 1)]
  means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
  low, high = min(means), max(means)
  return "".join(
    BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] if high > low else BLOCKS[0]
    for value in means
  )
