"""The picture of a study: points, lines or a matrix of means with their standard errors."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, GREY, PALE = "#4c78a8", "#9aa5b1", "#d5dae0"
COLUMNS = 3  # of panels


def plot_study(found: Mapping[str, Any], path: pathlib.Path) -> None:
  """Writes a PNG, with values in %, except for losses.

  Args:
    found: the content of study.json; its "picture" says what is drawn, see `definition.define_study`. Points
      have the value of each seed behind them. Lines leave out runs with one scalar.
  """
  scalars = list(dict.fromkeys(row["scalar"] for row in found["rows"]))
  figure = {"points": _points, "lines": _lines, "matrix": _matrix}[found.get("picture", "points")](
    found["rows"], scalars
  )
  new = path.with_name(f".{os.getpid()}.{path.name}")  # another runner may write the same picture
  figure.savefig(new, dpi=120, format="png")
  os.replace(new, path)


def _points(rows: Sequence[Mapping], scalars: list[str]) -> Figure:
  runs = list(dict.fromkeys(row["run"] for row in rows))
  figure, panels = _panels(len(scalars), height=0.9 + 0.34 * len(runs), sharey=True)
  for axes, scalar in zip(panels, scalars):
    factor = _factor(scalar)
    for row in rows:
      if row["scalar"] == scalar:
        place = runs.index(row["run"])
        values = factor * np.array(row["values"])
        axes.plot(values, np.full(len(values), place), "o", color=GREY, markersize=3, alpha=0.7)
        spread = factor * (row["standard_error"] or 0)
        axes.errorbar(factor * row["mean"], place, xerr=spread, fmt="o", color=BLUE, markersize=5, capsize=3)
    axes.set_title(_title(scalar), fontsize=9, loc="left")
    axes.set_yticks(range(len(runs)), runs, fontsize=8)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4, color=PALE)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
  return figure


def _lines(rows: Sequence[Mapping], scalars: list[str]) -> Figure:
  counts = {name: sum(row["run"] == name for row in rows) for name in dict.fromkeys(r["run"] for r in rows)}
  runs = [name for name, count in counts.items() if count > 1]
  scalars = [scalar for scalar in scalars if any(r["scalar"] == scalar and r["run"] in runs for r in rows)]
  figure = Figure(figsize=(3.2 + 0.9 * len(scalars), 4.2), layout="constrained")
  axes = figure.subplots()
  colours = matplotlib.colormaps["tab20"].colors  # pyright: ignore[reportAttributeAccessIssue]
  for number, run in enumerate(runs):
    mine = {row["scalar"]: row for row in rows if row["run"] == run}
    places = [place for place, scalar in enumerate(scalars) if scalar in mine]
    means, errors = (
      [_factor(scalars[place]) * (mine[scalars[place]][kind] or 0) for place in places]
      for kind in ("mean", "standard_error")
    )
    colour, dashes = colours[number % len(colours)], "--" if ":" in run else "-"
    axes.errorbar(
      places, means, yerr=errors, label=run, color=colour, ls=dashes, marker="o", markersize=4, capsize=2
    )
  axes.set_xticks(
    range(len(scalars)), [scalar.replace("_", " ") for scalar in scalars], fontsize=8, rotation=20
  )
  axes.set_ylabel("%", fontsize=9)
  axes.grid(axis="y", linewidth=0.4, color=PALE)
  axes.tick_params(labelsize=8, length=0)
  axes.spines[["top", "right"]].set_visible(False)
  figure.legend(loc="outside right center", fontsize=8, frameon=False)
  return figure


def _matrix(rows: Sequence[Mapping], scalars: list[str]) -> Figure:
  names = list(dict.fromkeys(name for row in rows for name in row["run"].split("+")))
  figure, panels = _panels(len(scalars), height=1.2 + 0.5 * len(names), width=1.2 + 0.55 * len(names))
  for axes, scalar in zip(panels, scalars):
    cells = np.full((len(names), len(names)), np.nan)
    for row in rows:
      parts = row["run"].split("+")
      if row["scalar"] == scalar:
        i, j = names.index(parts[0]), names.index(parts[-1])
        cells[i, j] = cells[j, i] = _factor(scalar) * row["mean"]
    axes.imshow(cells, cmap="viridis")
    middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
    for i, j in zip(*np.nonzero(np.isfinite(cells))):
      ink = "white" if cells[i, j] < middle else "black"
      axes.text(j, i, f"{cells[i, j]:.1f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=45)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(_title(scalar), fontsize=9, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
  return figure


def _panels(count: int, *, height: float, width: float = 3.4, **shared) -> tuple[Figure, list[Axes]]:
  """A figure with `count` panels, at most COLUMNS in a row."""
  columns = min(COLUMNS, count)
  lines = -(-count // columns)
  figure = Figure(figsize=(1.6 + width * columns, height * lines), layout="constrained")
  panels = list(figure.subplots(lines, columns, squeeze=False, **shared).flatten())
  for axes in panels[count:]:
    axes.set_axis_off()
  return figure, panels[:count]


def _factor(scalar: str) -> int:
  return 1 if "loss" in scalar else 100


def _title(scalar: str) -> str:
  return scalar.replace("_", " ") + ("" if "loss" in scalar else ", %")
