"""A picture of detection: images with their true objects, and the same images with what was detected."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from ssl_jax.data import instance_masks
from ssl_jax.data.instance_masks import EncodedMask
from ssl_jax.data.objects import Objects
from ssl_jax.tasks.detection_scores import Detected
from ssl_jax.view.class_names import short_names
from ssl_jax.view.segmentation import make_palette

ROW = 3  # images beside each other
LEAST_SCORE = 0.3  # of a detection that is drawn
BLEND = 0.45  # of the colour of a mask


class Shown(NamedTuple):
  """An image with its objects and detections, whose boxes and masks are those of the image at full size."""

  image: np.ndarray  # uint8[H, W, 3]
  scale: float  # H over the full height
  truth: Objects
  found: Detected


def plot_detection(
  path: str | pathlib.Path, shown: Sequence[Shown], class_names: Sequence[str], *, title: str = ""
) -> None:
  """Writes a PNG with the true objects of each image above its detections.

  Detections of a score below LEAST_SCORE are left out. Difficult objects and crowds are dashed. The colours
  are those of the classes or, if there is only one, those of the objects.
  """
  columns = min(len(shown), ROW) or 1
  rows = -(-len(shown) // columns) or 1
  figure = Figure(figsize=(3.1 * columns, 5.2 * rows + 0.5), dpi=110)
  axes = figure.subplots(2 * rows, columns, squeeze=False)
  names = short_names(class_names, len(class_names))
  for axis in axes.flat:
    axis.axis("off")
  for i, one in enumerate(shown):
    above, below = (axes[2 * (i // columns) + part, i % columns] for part in (0, 1))
    truth, kept = one.truth, np.flatnonzero(one.found.scores >= LEAST_SCORE)
    labels = [names[c] for c in truth.classes]
    dashed = truth.difficult | truth.crowd
    _draw(above, one, truth.boxes, truth.classes, truth.masks, labels, dashed, names)
    found = one.found
    masks = None if found.masks is None else tuple(found.masks[i] for i in kept)
    labels = [f"{names[c]} {s:.2f}" for c, s in zip(found.classes[kept], found.scores[kept], strict=True)]
    dashed = np.zeros(len(kept), bool)
    _draw(below, one, found.boxes[kept], found.classes[kept], masks, labels, dashed, names)
    above.set_title("truth", fontsize=8, loc="left", pad=2)
    below.set_title(f"detected, score >= {LEAST_SCORE:g}", fontsize=8, loc="left", pad=2)
  top = 1 - 0.45 / figure.get_figheight()
  figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=top, wspace=0.03, hspace=0.09)
  figure.text(0.01, 1 - 0.08 / figure.get_figheight(), title, fontsize=10, ha="left", va="top")
  figure.savefig(path)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """uint8[H, W, 3]: an image with the outlines of boxes f32[n, 4], in the colours of their classes i[n]."""
  palette, drawn = make_palette(max(classes.max(initial=0) + 1, 1)), Image.fromarray(image)
  pen = ImageDraw.Draw(drawn)
  for box, number in zip(boxes.tolist(), classes, strict=True):
    pen.rectangle(box, outline=tuple(palette[number].tolist()), width=max(len(image) // 110, 1))
  return np.asarray(drawn)


def _draw(
  axis: Axes,
  one: Shown,
  boxes: np.ndarray,
  classes: np.ndarray,
  masks: Sequence[EncodedMask] | None,
  labels: Sequence[str],
  dashed: np.ndarray,
  names: Sequence[str],
) -> None:
  """Draws an image with objects; the boxes that are `dashed` do not count."""
  numbers = classes if len(names) > 1 else np.arange(len(boxes)) % 12
  palette = make_palette(max(len(names), 12))
  image = one.image
  for mask, number in zip(masks or (), numbers):
    image = _tinted(image, mask, palette[number])
  axis.imshow(image, interpolation="bilinear")
  for box, number, label, broken in zip(boxes * one.scale, numbers, labels, dashed, strict=True):
    red, green, blue = (palette[number] / 255).tolist()
    x1, y1, x2, y2 = box.tolist()
    line = "--" if broken else "-"
    frame = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=(red, green, blue), lw=1.3, ls=line)
    axis.add_patch(frame)
    plate = dict(fc=(red, green, blue), ec="none", pad=0.6, alpha=0.85)
    axis.text(x1, y1, label, fontsize=5.5, color="white", va="top", clip_on=True, bbox=plate)
  axis.set_xlim(-0.5, image.shape[1] - 0.5)
  axis.set_ylim(image.shape[0] - 0.5, -0.5)


def _tinted(image: np.ndarray, mask: EncodedMask, colour: np.ndarray) -> np.ndarray:
  """The image with a colour over the mask of an object, which may have another size."""
  pixels = Image.fromarray(instance_masks.pixels(mask).astype(np.uint8) * 255)
  inside = np.asarray(pixels.resize(image.shape[1::-1], Image.Resampling.BILINEAR)) >= 128
  mixed = ((1 - BLEND) * image + BLEND * colour).astype(np.uint8)
  return np.where(inside[..., None], mixed, image)
