"""Errors under corruption: the heat map of one evaluation, and the bars of several side by side."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_jax.log.run_log import read_json
from ssl_jax.tasks.corrupted import CLEAN
from ssl_jax.view.request import PictureRequest

BAR_COLOURS = ("#9aa5b1", "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756")
INK = "#1c2733"

Bars = dict[str, tuple[float, float]]  # by condition: error in [0, 1] and its standard error


def show_errors(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws the errors that evaluations under corruption measured, side by side.

  If an evaluation has no standard errors, those of a fraction are drawn: sqrt(e (1 - e) / n).
  Raises: ValueError for a file that does not exist or that holds no errors under corruption.
  """
  series = {}
  for word in request.evaluations.split(","):
    name, _, file = word.rpartition("=")
    if not pathlib.Path(file).is_file():
      raise ValueError(
        f"--evaluations={request.evaluations}: there is no file {file!r}; write NAME=FILE.json,NAME=FILE.json"
      )
    series[name or pathlib.Path(file).stem] = _read_bars(file)
  output.parent.mkdir(parents=True, exist_ok=True)
  plot_bars(output, series)


def plot_errors(path: str | pathlib.Path, errors: dict[str, dict[int, float]], *, title: str = "") -> None:
  """Writes a PNG: a heat map with a row for each corruption, a column for each severity, and their mean last.

  Args:
    errors: by corruption, by severity, in [0, 1].
  """
  severities = list(next(iter(errors.values())))
  table = np.array([[row[s] for s in severities] + [np.mean(list(row.values()))] for row in errors.values()])
  figure = Figure(
    figsize=(1.7 + 0.72 * (len(severities) + 1), 0.8 + 0.33 * len(errors)), layout="constrained"
  )
  axes = figure.subplots()
  axes.imshow(table, cmap="magma_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
  for (row, column), error in np.ndenumerate(table):
    color = "white" if error > 0.5 else INK
    axes.text(column, row, f"{100 * error:.1f}", ha="center", va="center", fontsize=8, color=color)
  axes.axvline(len(severities) - 0.5, color="white", linewidth=3)
  axes.set_xticks(range(len(severities) + 1), [*map(str, severities), "mean"], fontsize=8)
  axes.set_yticks(range(len(errors)), [name.replace("_", " ") for name in errors], fontsize=8)
  axes.set_xlabel("severity", fontsize=8)
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_title(title or "error, %", fontsize=9, loc="left")
  figure.savefig(path, dpi=110)


def plot_bars(path: str | pathlib.Path, series: dict[str, Bars], *, title: str = "") -> None:
  """Writes a PNG: for every condition one bar of each series with its standard error.

  Behind them stands the mean of each series over all conditions but "clean", if there are at least two.

  Args:
    series: by name, the reference first. Conditions that a series lacks are left out.
  """
  names = [name for name in next(iter(series.values())) if all(name in bars for bars in series.values())]
  corrupted = [name for name in names if name != CLEAN]
  with_mean = len(corrupted) > 1
  size = (3 + 0.32 * (len(names) + 2) * (0.6 + 0.4 * len(series)), 3.6)
  figure = Figure(figsize=size, layout="constrained")
  axes = figure.subplots()
  width = 0.84 / len(series)
  places = np.array([*range(len(names)), *([len(names) + 0.6] if with_mean else [])])
  for i, (label, bars) in enumerate(series.items()):
    shown = [bars[name] for name in names]
    if with_mean:
      shown.append((float(np.mean([bars[name][0] for name in corrupted])), 0.0))
    shift = (i - (len(series) - 1) / 2) * width
    _draw_series(axes, places + shift, shown, width, label, BAR_COLOURS[i % len(BAR_COLOURS)])
  ticks = [name.replace("_", "\n") for name in names] + (["mean over\ncorruptions"] if with_mean else [])
  axes.set_xticks(places, ticks, fontsize=8)
  axes.set_ylabel("error, %", fontsize=9)
  axes.margins(y=0.14)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(axis="x", length=0)
  axes.legend(fontsize=8, frameon=False, ncols=len(series), loc="upper left", bbox_to_anchor=(0, 1.1))
  axes.set_title(title, fontsize=9, loc="right")
  figure.savefig(path, dpi=110)


def bars_of(error: dict[str, dict], spread: dict[str, dict]) -> Bars:
  """The errors and standard errors of a protocol, by corruption and severity, as bars.

  The severity is part of a bar's name if the corruption has several. A missing standard error is 0.
  """
  return {
    name if len(row) == 1 else f"{name} {severity}": (value, spread.get(name, {}).get(severity, 0.0))
    for name, row in error.items()
    for severity, value in row.items()
  }


def _read_bars(file: str) -> Bars:
  """The bars of one evaluation. Raises ValueError if it did not measure errors under corruption."""
  found = read_json(file, "delete it and evaluate again")
  protocol = found["protocol"]
  if "error" not in protocol:
    raise ValueError(f"{file} holds no errors under corruption; use results of the tasks robustness and ttt")
  rows, clean = protocol["test_rows"], found["scalars"].get("clean_error")
  errors = ({} if clean is None else {CLEAN: {"0": clean}}) | protocol["error"]
  spread = protocol.get("standard_error") or {
    name: {severity: math.sqrt(e * (1 - e) / rows) for severity, e in row.items()}
    for name, row in errors.items()
  }
  return bars_of(errors, spread)


def _draw_series(
  axes: Axes, places: np.ndarray, bars: Sequence[tuple[float, float]], width: float, label: str, colour: str
) -> None:
  """Draws the bars of one series at these places and writes the value of the last above it."""
  heights, spreads = (100 * np.array(values) for values in zip(*bars))
  line = {"elinewidth": 0.8, "ecolor": INK}
  axes.bar(places, heights, width, yerr=spreads, label=label, color=colour, error_kw=line)
  last = heights[-1]
  axes.text(places[-1], last + 0.8, f"{last:.1f}", ha="center", va="bottom", fontsize=7, rotation=90)
