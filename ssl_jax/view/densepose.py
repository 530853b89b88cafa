"""A picture of DensePose: parts of bodies in colours, with lines of equal U and V, and annotated points."""

from __future__ import annotations

import colorsys
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_jax.data.body_parts import PARTS, SEGMENT_NAMES, SEGMENT_OF_PART, SEGMENTS
from ssl_jax.data.dense_points import DensePoints
from ssl_jax.tasks.densepose_scores import DenseDetected

LINES = 4  # intervals of U and of V between lines
WIDE = 3.2  # inches of a column
LIGHT, DARK = 1.45, 0.45  # by which lines of equal U and of equal V change the colour of the part


class ShownPeople(NamedTuple):
  """An image with what is known and what is predicted of it."""

  image: np.ndarray  # uint8[H, W, 3]
  truth: Sequence[DensePoints]
  detected: DenseDetected | None = None


def plot_densepose(path: str | pathlib.Path, images: Sequence[ShownPeople], *, title: str = "") -> None:
  """Writes a PNG with a row for each image: the image, its annotated points, and the predicted surfaces.

  Points have the colour of their part. A predicted body has the colours of its parts, with light lines of
  equal U and dark lines of equal V at quarters.
  """
  columns = ("image", "annotated points", "prediction")[: 3 if any(s.detected for s in images) else 2]
  tall = [WIDE * shown.image.shape[0] / shown.image.shape[1] for shown in images]
  figure = Figure(figsize=(WIDE * len(columns) + 1.9, max(sum(tall), 3.2) + 0.5), dpi=110)
  axes = figure.subplots(len(images), len(columns), squeeze=False, gridspec_kw={"height_ratios": tall})
  for row, shown in zip(axes, images, strict=True):
    tiles = [shown.image] * len(row)
    if shown.detected is not None:
      tiles[2] = overlay_bodies(shown.image, shown.detected)
    for axis, tile in zip(row, tiles, strict=True):
      axis.axis("off")
      axis.imshow(tile)
      axis.autoscale(False)
    for dense in shown.truth:
      draw_points(row[1], dense)
  for axis, name in zip(axes[0], columns, strict=True):
    axis.set_title(name, fontsize=9)
  top = 1 - 0.42 / figure.get_figheight()
  right = 1 - 1.85 / figure.get_figwidth()
  figure.subplots_adjust(left=0.01, right=right, bottom=0.01, top=top, wspace=0.03, hspace=0.03)
  place = (right + 0.005, top + 0.01)
  figure.legend(handles=_legend(), loc="upper left", bbox_to_anchor=place, fontsize=6.5, frameon=False)
  figure.text(0.01, 1 - 0.08 / figure.get_figheight(), title, fontsize=10, ha="left", va="top")
  figure.savefig(path)


def _make_palette() -> np.ndarray:
  """uint8[25, 3]: a hue for each segment of the body, darker for its further parts."""
  palette = np.zeros((PARTS + 1, 3), np.uint8)
  for part in range(1, PARTS + 1):
    segment = int(SEGMENT_OF_PART[part])
    before = int((SEGMENT_OF_PART[1:part] == segment).sum())
    # Steps of 5 in 14 hues, so that neighbours on the body differ.
    colour = colorsys.hls_to_rgb(5 * segment % SEGMENTS / SEGMENTS, (0.62, 0.42)[before], 0.75)
    palette[part] = [round(255 * channel) for channel in colour]
  return palette


PALETTE = _make_palette()  # by part; 0 is not shown


def draw_points(axis, dense: DensePoints) -> None:
  """Draws the box and the points of a person."""
  left, top, right, bottom = dense.frame - 0.5  # the centre of the first pixel is at 0
  outline = ([left, right, right, left, left], [top, top, bottom, bottom, top])
  axis.plot(*outline, color="white", linewidth=0.8)
  places = dense.frame[:2] + dense.points * (dense.frame[2:] - dense.frame[:2])
  axis.scatter(*(places.T - 0.5), s=9, c=PALETTE[dense.part] / 255, edgecolors="black", linewidths=0.3)


def overlay_bodies(image: np.ndarray, detected: DenseDetected) -> np.ndarray:
  """uint8[H, W, 3]: an image with the bodies over it, those of the best scores in front."""
  found = image.astype(np.float64)
  for i in np.argsort(detected.scores, kind="stable"):
    parts, uv = paste_body(detected.parts[i], detected.uv[i], detected.boxes[i], image.shape[:2])
    colours = PALETTE[parts] * _line_factor(parts, uv)[..., None]
    found = np.where((parts > 0)[..., None], 0.3 * found + 0.7 * colours, found)
  return found.clip(0, 255).astype(np.uint8)


def paste_body(
  parts: np.ndarray, uv: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """(Parts uint8[H, W], U and V f32[H, W, 2]): what a detection says of the pixels of an image.

  They are those of the nearest pixel of its frame, and 0 outside of its box.

  Args:
    parts, uv: uint8[h, w] and f32[h, w, 2] in the frame of the box f32[4].
    size: (H, W).
  """
  index, inside = [], []
  for axis, extent in ((1, size[0]), (0, size[1])):
    side = max(float(box[axis + 2] - box[axis]), 1e-6)
    cells = parts.shape[1 - axis]
    place = np.floor((np.arange(extent) + 0.5 - box[axis]) / side * cells).astype(np.int64)
    inside.append((place >= 0) & (place < cells))
    index.append(place.clip(0, cells - 1))
  seen = inside[0][:, None] & inside[1][None]
  pick = np.ix_(*index)
  return np.where(seen, parts[pick], 0).astype(np.uint8), np.where(seen[..., None], uv[pick], 0)


def _line_factor(parts: np.ndarray, uv: np.ndarray) -> np.ndarray:
  """f64[H, W]: LIGHT where U passes a multiple of 1 / LINES, DARK where V does, 1 elsewhere."""
  factor = np.ones(parts.shape)
  for axis, value in ((1, DARK), (0, LIGHT)):
    step = np.floor(uv[..., axis] * LINES)
    for shift in (0, 1):
      before, part_before = (np.roll(leaf, 1, shift) for leaf in (step, parts))
      crossed = (before != step) & (part_before == parts)
      crossed[(slice(None),) * shift + (0,)] = False
      factor[crossed] = value
  return factor


def _legend() -> list[Line2D]:
  """An entry for each part: its colour, its number and its segment of the body."""
  return [
    Line2D(
      [],
      [],
      marker="o",
      linestyle="",
      markersize=4,
      color=PALETTE[part] / 255,
      label=f"{part} {SEGMENT_NAMES[SEGMENT_OF_PART[part] - 1]}",
    )
    for part in range(1, PARTS + 1)
  ]
