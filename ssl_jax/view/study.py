"""The picture of a study: the mean of each run with its standard error, one panel for each scalar."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

BLUE, GREY = "#4c78a8", "#9aa5b1"
COLUMNS = 3  # of panels


def plot_study(found: Mapping[str, Any], path: pathlib.Path) -> None:
  """Writes a PNG: points with error bars, and behind them the value of each seed, in % except for losses.

  Args:
    found: the content of study.json.
  """
  scalars = list(dict.fromkeys(row["scalar"] for row in found["rows"]))
  runs = list(dict.fromkeys(row["run"] for row in found["rows"]))
  columns = min(COLUMNS, len(scalars))
  lines = -(-len(scalars) // columns)
  figure = Figure(figsize=(1.6 + 3.4 * columns, (0.9 + 0.34 * len(runs)) * lines), layout="constrained")
  panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
  for axes, scalar in zip(panels, scalars):
    factor, unit = (1, "") if "loss" in scalar else (100, ", %")
    for row in found["rows"]:
      if row["scalar"] == scalar:
        place = runs.index(row["run"])
        values = factor * np.array(row["values"])
        axes.plot(values, np.full(len(values), place), "o", color=GREY, markersize=3, alpha=0.7)
        spread = factor * (row["standard_error"] or 0)
        axes.errorbar(factor * row["mean"], place, xerr=spread, fmt="o", color=BLUE, markersize=5, capsize=3)
    axes.set_title(scalar.replace("_", " ") + unit, fontsize=9, loc="left")
    axes.set_yticks(range(len(runs)), runs, fontsize=8)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4, color="#d5dae0")
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
  for axes in panels[len(scalars) :]:
    axes.set_axis_off()
  new = path.with_name(f".{os.getpid()}.{path.name}")  # another runner may write the same picture
  figure.savefig(new, dpi=120, format="png")
  os.replace(new, path)
