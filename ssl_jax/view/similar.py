"""A picture sheet of the images that are most similar to a given one."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ssl_jax.view.class_names import short_names
from ssl_jax.view.neighbours import QUERY, draw_tile

COLUMNS = 6
_PLAIN = "#bbbbbb"  # colour of frames


def plot_similar(
  path: str | pathlib.Path,
  query: np.ndarray,
  images: np.ndarray,
  *,
  names: Sequence[str],
  similarity: np.ndarray,
  title: str = "",
) -> None:
  """Writes a PNG: an image, and then the images that are most similar to it, from the left, row by row.

  Args:
    query: uint8[H, W, 3].
    images: uint8[N, H, W, 3], the most similar one first.
    names: of the query and of the N images; the end of the last part is shown.
    similarity: f32[N], which is written below each image.
  """
  tiles = [query, *images]
  rows = -(-len(tiles) // COLUMNS)
  figure = Figure(figsize=(1.45 * COLUMNS, 0.5 + 1.75 * rows), layout="constrained")
  grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
  ends = [name if len(name) <= 18 else f"…{name[-17:]}" for name in map(os.path.basename, names)]
  below = [ends[0], *(f"{name}\n{cosine:.2f}" for name, cosine in zip(ends[1:], similarity))]
  texts = short_names(below, len(below), 30)
  for i, axes in enumerate(grid):
    if i >= len(tiles):
      axes.axis("off")
      continue
    draw_tile(axes, tiles[i], texts[i], _PLAIN if i else QUERY, text_color="black")
  figure.suptitle(
    f"{title}\nthe first image, and the most similar ones (cosine)", fontsize=10, x=0.01, ha="left"
  )
  figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.12)
