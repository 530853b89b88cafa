"""A picture of semantic segmentation: images, their labels, the predictions and the errors."""

from __future__ import annotations

import colorsys
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from ssl_jax.data.host import IGNORE
from ssl_jax.view.class_names import short_names

LONGEST = 320  # longer side of a tile, pixels
LISTED = 40  # the most classes in the legend; the most frequent ones
WRONG, RIGHT, VOID = np.array([[214, 60, 50], [225, 232, 238], [0, 0, 0]], np.uint8)
COLUMNS = ("image", "truth", "prediction", "error")


def plot_segmentation(
  path: str | pathlib.Path,
  found: Mapping[str, np.ndarray],
  class_names: Sequence[str],
  *,
  iou: Mapping[str, float | None],
  title: str = "",
) -> None:
  """Writes a PNG with a row for each image: image, truth, prediction and error, and a legend.

  Pixels without a class are black, and so they are in the error, in which wrong pixels are red.

  Args:
    found: of M images, each in the upper left corner of a canvas: "shown_image" uint8[M, H, W, 3],
      "shown_image_size" and "shown_mask_size" i32[M, 2], "shown_truth" and "shown_predicted"
      uint8[M, H', W']; and "confusion" i64[C, C], whose rows are the true classes.
    iou: by class name; None for a class that does not occur.
  """
  palette = make_palette(len(class_names))
  rows = _rows(found, palette) if "shown_image" in found else []
  height, width = rows[0][0].shape[:2] if rows else (1, 1)
  tall = 2.4 * height / width
  figure = Figure(figsize=(2.4 * len(COLUMNS) + 2.6, max(tall * len(rows), 2.0) + 0.6), dpi=110)
  axes = figure.subplots(max(len(rows), 1), len(COLUMNS), squeeze=False)
  for axis in axes.flat:
    axis.axis("off")
  for of_row, tiles in zip(axes, rows):
    for axis, tile in zip(of_row, tiles, strict=True):
      axis.imshow(tile, interpolation="nearest")
  for axis, name in zip(axes[0], COLUMNS, strict=True):
    axis.set_title(name, fontsize=9)
  top = 1 - 0.55 / figure.get_figheight()
  figure.subplots_adjust(left=0.01, right=0.78, bottom=0.01, top=top, wspace=0.03, hspace=0.03)
  figure.legend(
    handles=_legend(found["confusion"], palette, class_names, iou),
    loc="upper left",
    bbox_to_anchor=(0.785, top + 0.01),
    fontsize=7,
    frameon=False,
    title="intersection over union, %",
    title_fontsize=7,
    alignment="left",
  )
  figure.text(0.01, 1 - 0.1 / figure.get_figheight(), title, fontsize=10, ha="left", va="top")
  figure.savefig(path)


def make_palette(count: int) -> np.ndarray:
  """uint8[256, 3]: a colour for each of `count` classes, distinct between neighbours, and black."""
  palette = np.full((256, 3), VOID, np.uint8)
  for i in range(count):
    hue = (i * (math.sqrt(5) - 1) / 2 + 0.58) % 1
    colour = colorsys.hls_to_rgb(hue, (0.5, 0.68, 0.36)[i % 3], (0.62, 0.75, 0.5)[i // 3 % 3])
    palette[i] = [round(255 * part) for part in colour]
  return palette


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """uint8[H, W, 3]: an image with the colours of its classes over it; pixels without a class stay.

  Args:
    mask: uint8[H, W], classes or IGNORE.
  """
  mixed = (image.astype(np.uint16) + make_palette(IGNORE)[mask]) // 2
  return np.where((mask == IGNORE)[..., None], image, mixed.astype(np.uint8))


def _rows(found: Mapping[str, np.ndarray], palette: np.ndarray) -> list[list[np.ndarray]]:
  """The tiles of each image, all of one size."""
  rows = []
  for i, image in enumerate(found["shown_image"]):
    height, width = found["shown_image_size"][i]
    tall, wide = found["shown_mask_size"][i]
    truth, predicted = (found[name][i, :tall, :wide] for name in ("shown_truth", "shown_predicted"))
    shown = np.where(truth == IGNORE, np.uint8(IGNORE), predicted)
    error = np.where((truth == predicted)[..., None], RIGHT, WRONG)
    error[truth == IGNORE] = VOID
    rows.append([image[:height, :width], palette[truth], palette[shown], error])
  widest = max(rows, key=lambda row: row[0].shape[1] / row[0].shape[0])[0]
  scale = LONGEST / max(widest.shape[:2])
  size = (round(widest.shape[1] * scale), round(widest.shape[0] * scale))
  return [[_fit(tile, size, smooth=not column) for column, tile in enumerate(row)] for row in rows]


def _fit(tile: np.ndarray, size: tuple[int, int], *, smooth: bool) -> np.ndarray:
  """The tile inside a white rectangle of (width, height)."""
  factor = min(size[0] / tile.shape[1], size[1] / tile.shape[0])
  shape = (max(round(tile.shape[1] * factor), 1), max(round(tile.shape[0] * factor), 1))
  kind = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
  small = np.asarray(Image.fromarray(tile).resize(shape, kind))
  canvas = np.full((size[1], size[0], 3), 255, np.uint8)
  top, left = (size[1] - shape[1]) // 2, (size[0] - shape[0]) // 2
  canvas[top : top + shape[1], left : left + shape[0]] = small
  return canvas


def _legend(
  confusion: np.ndarray, palette: np.ndarray, class_names: Sequence[str], iou: Mapping[str, float | None]
) -> list[Patch]:
  """An entry for each of the classes with the most pixels: its colour, name and intersection over union."""
  pixels = confusion.sum(1)
  chosen = np.sort(np.argsort(-pixels, kind="stable")[:LISTED])
  names = short_names(class_names, len(class_names))
  entries = []
  for i in chosen.tolist():
    value = iou.get(str(class_names[i]))
    score = "absent" if not pixels[i] or value is None else f"{100 * value:.0f}"
    entries.append(_patch(palette[i], f"{names[i]}  {score}"))
  return [*entries, _patch(VOID, "no class"), _patch(WRONG, "wrong")]


def _patch(colour: np.ndarray, label: str) -> Patch:
  red, green, blue = (colour / 255).tolist()
  return Patch(color=(red, green, blue), label=label)
