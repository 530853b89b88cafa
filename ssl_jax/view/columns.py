"""A picture with one image in each row and one version of the images in each column."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
from matplotlib.figure import Figure

from ssl_jax.view.request import to_bytes

TILE = 1.15  # side of an image in the figure, inches
GAP = 0.12  # width of the gap between two groups, in tiles
HEADER = 0.72  # height of the title and the column titles, inches


class Column(NamedTuple):
  """One column of a picture: its title and its images, f32[N, H, W, 3] in [0, 1]."""

  title: str
  images: jax.Array


def plot_columns(path: pathlib.Path, groups: Sequence[Sequence[Column]], *, title: str) -> None:
  """Writes a PNG with one row for each image and one column for each Column; gaps separate the groups.

  The folder of `path` is created if it does not exist.
  """
  columns = [column for group in groups for column in [*group, None]][:-1]
  rows = len(columns[0].images)
  widths = [GAP if column is None else 1.0 for column in columns]
  width, height = TILE * sum(widths) + 0.2, TILE * rows + HEADER
  figure = Figure(figsize=(width, height), dpi=120)
  axes = figure.subplots(
    rows,
    len(columns),
    squeeze=False,
    gridspec_kw=dict(
      width_ratios=widths, wspace=0.04, hspace=0.04, left=0.01, right=0.99, bottom=0.01, top=1 - 0.62 / height
    ),
  )
  for across, column in enumerate(columns):
    for down, axis in enumerate(axes[:, across]):
      axis.axis("off")
      if column is not None:
        axis.imshow(to_bytes(column.images[down]), interpolation="nearest")
    if column is not None:
      axes[0, across].set_title(column.title, fontsize=7.5)
  figure.text(0.01, 0.99, title, fontsize=8, ha="left", va="top")
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)
