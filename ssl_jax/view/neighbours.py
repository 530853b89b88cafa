"""A picture of test images and their nearest neighbours among the training images."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_jax.view.class_names import short_names

RIGHT, WRONG, QUERY = "#2a9d4e", "#d1382f", "#333333"  # colours of frames


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
  headers: tuple[str, str] = ("test image", "nearest training images"),
  summary: str = "",
) -> None:
  """Writes a PNG: each row is a test image and its nearest training images.

  The frame of a neighbour is green if it has the class of the test image, else red.

  Args:
    queries: uint8[Q, H, W, 3]; neighbours: uint8[Q, K, H, W, 3], nearest first.
    query_labels: i32[Q]; neighbour_labels: i32[Q, K].
    similarity: f32[Q, K], which is written below each neighbour; None: it is not.
    class_names: by class; a class without a name is called by its number.
    headers: above the test images and their neighbours.
    summary: below the title; "": how many neighbours have the class of the test image.
  """
  rows, columns = neighbours.shape[:2]
  names = short_names(class_names, 1 + max(int(query_labels.max()), int(neighbour_labels.max())))
  figure = Figure(figsize=(0.5 + 1.25 * (columns + 1), 0.75 + 1.5 * rows), layout="constrained")
  grid = figure.subplots(rows, columns + 2, squeeze=False, width_ratios=[1, 0.12, *[1] * columns])
  for row in range(rows):
    label = query_labels[row]
    draw_tile(grid[row, 0], queries[row], names[label], QUERY)
    grid[row, 1].axis("off")
    for column in range(columns):
      other = neighbour_labels[row, column]
      note = f"  {similarity[row, column]:.2f}" if similarity is not None else ""
      color = RIGHT if other == label else WRONG
      draw_tile(grid[row, column + 2], neighbours[row, column], names[other] + note, color)
  grid[0, 0].set_title(headers[0], fontsize=9, loc="left")
  grid[0, 2].set_title(headers[1] + (", cosine" if similarity is not None else ""), fontsize=9, loc="left")
  same = (neighbour_labels == query_labels[:, None]).mean()
  summary = summary or f"{same:.0%} of these neighbours have the class of the test image"
  figure.suptitle(f"{title}\n{summary}" if title else summary, fontsize=11, x=0.01, ha="left")
  figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.12)


def draw_tile(axes: Axes, image: np.ndarray, text: str, color: str, *, text_color: str = "") -> None:
  """Draws an image uint8[H, W, 3] with a frame and a text below; by default the text has its colour."""
  axes.imshow(image, interpolation="nearest")
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_xlabel(text, fontsize=8, color=text_color or color, labelpad=2)
  for spine in axes.spines.values():
    spine.set(color=color, linewidth=3)
