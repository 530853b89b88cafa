"""A picture of the confusion matrix of a classifier."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_jax.view.class_names import short_names

WRITTEN_CLASSES = 25  # the most classes for which every cell is written out
LISTED = 20  # how many confusions are listed for more classes


def plot_confusion(
  path: str | pathlib.Path,
  matrix: np.ndarray,
  *,
  class_names: Sequence[str] = (),
  title: str = "",
  counted: str = "images",
) -> None:
  """Writes a PNG of a confusion matrix; its rows are the true classes.

  Correct cells are blue and the others orange; a darker cell holds a larger fraction of its row. Up to 25
  classes, the percentage of the row and the number of images are written into every cell; for more classes,
  the largest confusions are listed beside the matrix.

  Args:
    matrix: i64[C, C] of `metrics.confusion_matrix`.
    class_names: by class; a class without a name is called by its number.
    counted: what the numbers of the matrix count.
  """
  count, written = len(matrix), len(matrix) <= WRITTEN_CLASSES
  names = short_names(class_names, count)
  fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  side = 2.4 + (0.66 * count if written else 7.5)
  figure = Figure(figsize=(max(side, 4.5) + (0 if written else 3.2), side), layout="constrained")
  axes = figure.subplots()
  axes.imshow(_cell_colours(fractions), interpolation="nearest")
  if written:
    _write_cells(axes, matrix, fractions)
    _write_names(axes, matrix, names, counted)
  else:
    step = -(-count // 40)
    axes.set_xticks(range(0, count, step), names[::step], rotation=90, fontsize=6)
    axes.set_yticks(range(0, count, step), names[::step], fontsize=6)
    listed = _largest_confusions(matrix, fractions, names)
    axes.text(1.03, 1, listed, transform=axes.transAxes, va="top", fontsize=9, linespacing=1.7)
  axes.set(xlabel="predicted class", ylabel="true class")
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0)
  total = matrix.sum()
  summary = f"{np.trace(matrix) / max(total, 1):.1%} of {total:,} {counted} correct"
  axes.set_title(f"{title}\n{summary}" if title else summary, fontsize=12, loc="left")
  figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.12)


def _cell_colours(fractions: np.ndarray) -> np.ndarray:
  """f64[C, C, 4]: RGBA. The square root makes a confusion of a few percent visible."""
  right = np.eye(len(fractions), dtype=bool)[:, :, None]
  depth = 0.05 + 0.85 * np.sqrt(fractions)
  coloured = np.where(right, colormaps["Blues"](depth), colormaps["Oranges"](depth))
  return np.where(fractions[:, :, None] > 0, coloured, [0.97, 0.97, 0.97, 1.0])


def _write_cells(axes: Axes, matrix: np.ndarray, fractions: np.ndarray) -> None:
  """Writes the percentage of the row and the number of images into every cell that is not empty."""
  for (row, column), images in np.ndenumerate(matrix):
    if images:
      fraction, right = fractions[row, column], row == column
      percent = "<1%" if f"{fraction:.0%}" == "0%" else f"{fraction:.0%}"
      style: dict[str, Any] = dict(ha="center", va="center", color="white" if fraction > 0.4 else "#1c2733")
      size, weight = (11, "bold") if right else (9.5, "normal")
      axes.text(column, row - 0.12, percent, fontsize=size, weight=weight, **style)
      axes.text(column, row + 0.27, f"{images:,}", fontsize=7.5, **style)


def _write_names(axes: Axes, matrix: np.ndarray, names: list[str], counted: str) -> None:
  """Writes the number of images beside each true class, and below each predicted class its precision."""
  places = range(len(matrix))
  precisions = [
    f"{hits / predicted:.0%} correct" if predicted else "never predicted"
    for hits, predicted in zip(np.diag(matrix), matrix.sum(axis=0), strict=True)
  ]
  below = [f"{name}\n{precision}" for name, precision in zip(names, precisions, strict=True)]
  beside = [f"{name}\n{images:,} {counted}" for name, images in zip(names, matrix.sum(axis=1), strict=True)]
  axes.set_xticks(places, below, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
  axes.set_yticks(places, beside, fontsize=9)


def _largest_confusions(matrix: np.ndarray, fractions: np.ndarray, names: list[str]) -> str:
  """The LISTED wrong cells with the largest fractions of their rows, one in each line."""
  wrong = np.where(np.eye(len(matrix), dtype=bool), 0, fractions)
  rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:LISTED], wrong.shape)
  lines = [
    f"{fractions[row, column]:4.0%}  {names[row]} → {names[column]}"
    for row, column in zip(rows, columns, strict=True)
    if matrix[row, column]
  ]
  return "\n".join(["largest confusions: true → predicted", *lines])
