"""Draws the picture sheet of what was mined."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_jax.mining.miner import Row

HEIGHT = 96  # of an image in the sheet, pixels
_GAP, _LINE = 4, 16
_WIDEST = 1800  # of a row; images beyond it are left out


def draw_sheet(path: pathlib.Path, rows: Sequence[Row], title: str) -> None:
  """Writes a PNG with a title and, for each row, a caption and its images, all at one height."""
  strips = [(row.caption, _strip(row.images)) for row in rows]
  font = ImageFont.load_default(12)
  width = max([strip.shape[1] for _, strip in strips] + [int(font.getlength(title)) + 2 * _GAP, 400])
  sheet = Image.new("RGB", (width, _LINE + _GAP + len(strips) * (_LINE + HEIGHT + _GAP)), "white")
  draw = ImageDraw.Draw(sheet)
  draw.text((_GAP, 0), title, "black", font)
  for number, (caption, strip) in enumerate(strips):
    top = _LINE + _GAP + number * (_LINE + HEIGHT + _GAP)
    draw.text((_GAP, top), caption, "black", font)
    sheet.paste(Image.fromarray(strip), (0, top + _LINE))
  path.parent.mkdir(parents=True, exist_ok=True)
  sheet.save(path)


def _strip(images: Sequence[np.ndarray]) -> np.ndarray:
  """Joins images uint8[H, W, 3] of any size to one row uint8[HEIGHT, W', 3]."""
  parts, width = [np.full((HEIGHT, 1, 3), 255, np.uint8)], 1
  for pixels in images:
    across = max(round(pixels.shape[1] * HEIGHT / pixels.shape[0]), 1)
    width += across + _GAP
    if width > _WIDEST:
      break
    small = Image.fromarray(pixels).resize((across, HEIGHT), Image.Resampling.BOX)
    parts += [np.asarray(small), np.full((HEIGHT, _GAP, 3), 255, np.uint8)]
  return np.concatenate(parts, 1)
