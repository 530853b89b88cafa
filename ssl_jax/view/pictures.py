"""Pictures of what a task found: which classes are confused, which images are held to be alike."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from matplotlib import colormaps
from matplotlib.figure import Figure

from ssl_jax.tasks.task import Batches

RIGHT, WRONG, QUERY = "#2a9d4e", "#d1382f", "#333333"
WRITTEN_CLASSES = 25  # up to so many classes every cell of the confusion matrix is written out


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """i64[C, C]: entry (i, j) counts the images of class i that were taken for class j."""
  cells = labels.astype(np.int64) * num_classes + predictions
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def plot_confusion(
  path: str | pathlib.Path, matrix: np.ndarray, *, class_names: Sequence[str] = (), title: str = ""
) -> None:
  """Writes a PNG: rows are true classes; blue is right, orange confused, darker a larger share.

  Args:
    matrix: i64[C, C] of `confusion_matrix`. Up to 25 classes every cell holds its percent of the row and its
      count; above that the largest confusions are listed beside the matrix.
  """
  count, written = len(matrix), len(matrix) <= WRITTEN_CLASSES
  names = _names(class_names, count)
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  side = 2.4 + (0.66 * count if written else 7.5)
  figure = Figure(figsize=(max(side, 4.5) + (0 if written else 3.2), side), layout="constrained")
  axes = figure.subplots()
  axes.imshow(_colours(shares), interpolation="nearest")
  if written:
    _write_cells(axes, matrix, shares)
    _write_names(axes, matrix, names)
  else:
    step = -(-count // 40)
    axes.set_xticks(range(0, count, step), names[::step], rotation=90, fontsize=6)
    axes.set_yticks(range(0, count, step), names[::step], fontsize=6)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.text(
      1.03,
      1,
      _largest_confusions(matrix, shares, names),
      transform=axes.transAxes,
      va="top",
      fontsize=9,
      linespacing=1.7,
    )
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0)
  total = matrix.sum()
  summary = f"{np.trace(matrix) / max(total, 1):.1%} of {total:,} images right"
  axes.set_title(f"{title}\n{summary}" if title else summary, fontsize=12, loc="left")
  figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.12)


def plot_neighbours(
  path: str | pathlib.Path,
  queries: np.ndarray,
  query_labels: np.ndarray,
  neighbours: np.ndarray,
  neighbour_labels: np.ndarray,
  *,
  similarity: np.ndarray | None = None,
  class_names: Sequence[str] = (),
  title: str = "",
) -> None:
  """Writes a PNG: a row is a test image and its nearest training images, same class green, other red.

  Args:
    queries: uint8[Q, H, W, 3]; neighbours: uint8[Q, K, H, W, 3], nearest first.
    query_labels: i32[Q]; neighbour_labels: i32[Q, K]; similarity: f32[Q, K], written below each if given.
  """
  rows, columns = neighbours.shape[:2]
  names = _names(class_names, 1 + max(int(query_labels.max()), int(neighbour_labels.max())))
  figure = Figure(figsize=(0.5 + 1.25 * (columns + 1), 0.75 + 1.5 * rows), layout="constrained")
  grid = figure.subplots(rows, columns + 2, squeeze=False, width_ratios=[1, 0.12, *[1] * columns])
  for row in range(rows):
    label = query_labels[row]
    _tile(grid[row, 0], queries[row], names[label], QUERY)
    grid[row, 1].axis("off")
    for column in range(columns):
      other = neighbour_labels[row, column]
      note = f"  {similarity[row, column]:.2f}" if similarity is not None else ""
      color = RIGHT if other == label else WRONG
      _tile(grid[row, column + 2], neighbours[row, column], names[other] + note, color)
  grid[0, 0].set_title("test image", fontsize=9, loc="left")
  grid[0, 2].set_title(
    "nearest training images" + (", cosine" if similarity is not None else ""), fontsize=9, loc="left"
  )
  same = (neighbour_labels == query_labels[:, None]).mean()
  summary = f"{same:.0%} of these neighbours share the class"
  figure.suptitle(f"{title}\n{summary}" if title else summary, fontsize=11, x=0.01, ha="left")
  figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.12)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
  """i64[<= count]: the first row of each class, then the second, ...: a fair choice of what to show."""
  order = np.argsort(labels, kind="stable")
  sorted_labels = labels[order]
  turn = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
  return order[np.lexsort((sorted_labels, turn))][:count]


def images_at(batches: Batches, indices: np.ndarray) -> np.ndarray:
  """uint8[*indices.shape, H, W, 3]: the images at these places of a split, the same on all processes.

  Args:
    indices: i32[...], as in `Features.index`.
  Raises: ValueError if an index does not occur.
  """
  wanted, where = np.unique(indices, return_inverse=True)
  found, images, read = np.zeros(len(wanted), bool), None, 0
  for batch in batches():
    index = np.asarray(batch.get("index", np.arange(read, read + len(batch["image"]))))
    read += len(index)
    take = np.isin(index, wanted) & np.asarray(batch.get("mask", np.ones(len(index), bool)))
    images = np.zeros((len(wanted), *batch["image"].shape[1:]), np.uint8) if images is None else images
    places = np.searchsorted(wanted, index[take])
    images[places], found[places] = batch["image"][take], True
    if found.all() and jax.process_count() == 1:
      break
  if jax.process_count() > 1:  # each process found its share; the others' rows are zero
    images, found = (leaf.max(axis=0) for leaf in multihost_utils.process_allgather((images, found)))
  if not found.all():
    raise ValueError(
      f"{(~found).sum()} of {len(wanted)} image numbers are not in the split, the first is "
      f'{wanted[~found][0]}; with several processes batches need an "index"'
    )
  return images[where.reshape(indices.shape)]


def _names(class_names: Sequence[str], count: int, length: int = 20) -> list[str]:
  """Names cut to `length` letters; a class without a name is called by its number."""
  names = [str(class_names[i]) if i < len(class_names) else str(i) for i in range(count)]
  return [name if len(name) <= length else name[: length - 1] + "…" for name in names]


def _colours(shares: np.ndarray) -> np.ndarray:
  """f64[C, C, 4]: RGBA. The root makes a confusion of a few percent visible."""
  right = np.eye(len(shares), dtype=bool)[:, :, None]
  depth = 0.05 + 0.85 * np.sqrt(shares)
  coloured = np.where(right, colormaps["Blues"](depth), colormaps["Oranges"](depth))
  return np.where(shares[:, :, None] > 0, coloured, [0.97, 0.97, 0.97, 1.0])


def _write_cells(axes, matrix: np.ndarray, shares: np.ndarray) -> None:
  for (row, column), images in np.ndenumerate(matrix):
    if images:
      share = shares[row, column]
      percent = "<1%" if f"{share:.0%}" == "0%" else f"{share:.0%}"
      color = "white" if share > 0.4 else "#1c2733"
      axes.text(
        column,
        row - 0.12,
        percent,
        ha="center",
        va="center",
        fontsize=11 if row == column else 9.5,
        color=color,
        weight="bold" if row == column else "normal",
      )
      axes.text(column, row + 0.27, f"{images:,}", ha="center", va="center", fontsize=7.5, color=color)


def _write_names(axes, matrix: np.ndarray, names: list[str]) -> None:
  """Beside a true class its number of images, below a predicted one the share that is right."""
  count = len(matrix)
  right = [
    f"{hit / taken:.0%} right" if taken else "never"
    for hit, taken in zip(np.diag(matrix), matrix.sum(axis=0), strict=True)
  ]
  axes.set_xticks(
    range(count),
    [f"{name}\n{share}" for name, share in zip(names, right, strict=True)],
    rotation=50,
    ha="right",
    rotation_mode="anchor",
    fontsize=9,
  )
  axes.set_yticks(
    range(count),
    [f"{name}\n{images:,} images" for name, images in zip(names, matrix.sum(axis=1), strict=True)],
    fontsize=9,
  )
  axes.set(xlabel="predicted class", ylabel="true class")


def _largest_confusions(matrix: np.ndarray, shares: np.ndarray, names: list[str], count: int = 20) -> str:
  wrong = np.where(np.eye(len(matrix), dtype=bool), 0, shares)
  rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:count], wrong.shape)
  lines = [
    f"{shares[row, column]:4.0%}  {names[row]} → {names[column]}"
    for row, column in zip(rows, columns, strict=True)
    if matrix[row, column]
  ]
  return "\n".join(["largest confusions: true → predicted", *lines])


def _tile(axes, image: np.ndarray, text: str, color: str) -> None:
  axes.imshow(image, interpolation="nearest")
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_xlabel(text, fontsize=8, color=color, labelpad=2)
  for spine in axes.spines.values():
    spine.set(color=color, linewidth=3)


def plot_errors(path: str | pathlib.Path, errors: dict[str, dict[int, float]], *, title: str = "") -> None:
  """Writes a PNG: a heat map, a row a corruption, a column a severity, the mean behind them.

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
    axes.text(
      column,
      row,
      f"{100 * error:.1f}",
      ha="center",
      va="center",
      fontsize=8,
      color="white" if error > 0.5 else "#1c2733",
    )
  axes.axvline(len(severities) - 0.5, color="white", linewidth=3)
  axes.set_xticks(range(len(severities) + 1), [*map(str, severities), "mean"], fontsize=8)
  axes.set_yticks(range(len(errors)), [name.replace("_", " ") for name in errors], fontsize=8)
  axes.set_xlabel("severity", fontsize=8)
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_title(title or "error, %", fontsize=9, loc="left")
  figure.savefig(path, dpi=110)


BAR_COLOURS = ("#9aa5b1", "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756")
Bars = dict[str, tuple[float, float]]  # by condition: error in [0, 1] and its standard error


def plot_bars(path: str | pathlib.Path, series: dict[str, Bars], *, title: str = "") -> None:
  """Writes a PNG: for every condition a bar of each series with its standard error, the mean over all but "clean" behind them.

  Args:
    series: by name, the reference first; conditions that one of them lacks are left out.
  """
  names = [name for name in next(iter(series.values())) if all(name in bars for bars in series.values())]
  harmed = [name for name in names if name != "clean"]
  figure = Figure(
    figsize=(3 + 0.32 * (len(names) + 2) * (0.6 + 0.4 * len(series)), 3.6), layout="constrained"
  )
  axes = figure.subplots()
  width = 0.84 / len(series)
  places = np.array([*range(len(names)), *([len(names) + 0.6] if len(harmed) > 1 else [])])
  for i, (label, bars) in enumerate(series.items()):
    heights, spreads = (np.array([bars[name][k] for name in names]) for k in range(2))
    if len(harmed) > 1:
      heights, spreads = (
        np.append(heights, np.mean([bars[name][0] for name in harmed])),
        np.append(spreads, 0),
      )
    axes.bar(
      places + (i - (len(series) - 1) / 2) * width,
      100 * heights,
      width,
      yerr=100 * spreads,
      label=label,
      color=BAR_COLOURS[i % len(BAR_COLOURS)],
      error_kw={"elinewidth": 0.8, "ecolor": "#1c2733"},
    )
    axes.text(
      places[-1] + (i - (len(series) - 1) / 2) * width,
      100 * heights[-1] + 0.8,
      f"{100 * heights[-1]:.1f}",
      ha="center",
      va="bottom",
      fontsize=7,
      rotation=90,
    )
  axes.set_xticks(
    places,
    [name.replace("_", "\n") for name in names] + (["mean of the\ncorrupted"] if len(harmed) > 1 else []),
    fontsize=8,
  )
  axes.set_ylabel("error, %", fontsize=9)
  axes.margins(y=0.14)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(axis="x", length=0)
  axes.legend(fontsize=8, frameon=False, ncols=len(series), loc="upper left", bbox_to_anchor=(0, 1.1))
  axes.set_title(title, fontsize=9, loc="right")
  figure.savefig(path, dpi=110)


def bars_of(error: dict[str, dict], spread: dict[str, dict]) -> Bars:
  """A protocol's errors and standard errors as bars; a severity is named where there are several."""
  return {
    name if len(row) == 1 else f"{name} {severity}": (value, spread.get(name, {}).get(severity, 0.0))
    for name, row in error.items()
    for severity, value in row.items()
  }
