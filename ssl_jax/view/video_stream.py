"""Pictures of test-time training along videos: the stream as an animation and a strip; scores over time."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ssl_jax.view.segmentation import overlay

HEIGHT = 180  # pixels of a frame in pictures
FRAMES = 120  # of an animation, at most
STRIP = 8  # frames in the strip
MILLISECONDS = 120  # of a frame in the animation
COLUMNS = ("truth", "frozen", "adapted")
_BAR, _SIDE = 22, 130  # pixels of the line, and of the column, of names
_TEXT, _SIDE_TEXT = 16, 28  # pixels of the names in them; a strip is wide, and reduced where it is shown


class StreamPictures:
  """Frames of the first video that are kept for pictures, reduced to HEIGHT pixels."""

  def __init__(self, video: int, length: int):
    """
    Args:
      video: the number of the video.
      length: of its stream.
    """
    self._video, self._every = video, -(-length // FRAMES)
    self.rows: list[list[np.ndarray]] = []

  def add(
    self, video: int, moment: int, image: np.ndarray, truth: np.ndarray, predicted: Sequence[np.ndarray]
  ) -> None:
    """Keeps a frame if it is one of those that are shown.

    Args:
      image: uint8[H, W, 3].
      truth, predicted: classes uint8[h, w], of the trained and of the adapted network.
    """
    if video != self._video or moment % self._every:
      return
    size = (max(round(image.shape[1] * HEIGHT / image.shape[0]), 1), HEIGHT)
    shown = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    masks = [
      np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in (truth, *predicted)
    ]
    self.rows.append([overlay(shown, mask) for mask in masks])

  def write(self, path: pathlib.Path) -> None:
    """Writes `path`.gif and `path`-strip.png; nothing if no frame was kept."""
    if not self.rows:
      return
    frames = [_named(np.concatenate(row, 1)) for row in self.rows]
    first, *others = [frame.quantize(128) for frame in frames]
    first.save(f"{path}.gif", save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
    places = np.unique(np.linspace(0, len(self.rows) - 1, STRIP).round().astype(int))
    strip = np.concatenate([np.concatenate(self.rows[place], 0) for place in places], 1)
    _named(strip, below=True).save(f"{path}-strip.png")


def _named(pixels: np.ndarray, *, below: bool = False) -> Image.Image:
  """Pictures with their names above them, or beside them if they are below each other."""
  height, width = pixels.shape[:2]
  left, top = (_SIDE, 0) if below else (0, _BAR)
  canvas = Image.new("RGB", (width + left, height + top), "white")
  canvas.paste(Image.fromarray(pixels), (left, top))
  draw, text = ImageDraw.Draw(canvas), _SIDE_TEXT if below else _TEXT
  for place, name in enumerate(COLUMNS):
    corner = (4, (2 * place + 1) * height // (2 * len(COLUMNS)) - text // 2) if below else None
    draw.text(
      corner or (place * width // len(COLUMNS) + 4, 1), name, fill="black", font=ImageFont.load_default(text)
    )
  return canvas


def plot_over_time(
  path: str | pathlib.Path, scores: Mapping[str, Mapping[str, np.ndarray]], *, title: str, smooth: int = 5
) -> None:
  """Draws the score of every frame over time, a panel for each video.

  Args:
    scores: by name of the video: "adapted" and "frozen" f64[T] in [0, 1], NaN for frames without classes.
    smooth: frames of a moving average.
  """
  count = len(scores)
  columns = min(count, 3)
  figure = Figure(figsize=(4.2 * columns, 2.4 * -(-count // columns) + 0.4), dpi=110)
  axes = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
  for axis in axes[count:]:
    axis.axis("off")
  for axis, (name, of_video) in zip(axes, scores.items()):
    for kind, colour in (("frozen", "tab:grey"), ("adapted", "tab:blue")):
      axis.plot(100 * _averaged(of_video[kind], smooth), color=colour, label=kind, linewidth=1)
    axis.set_title(name, fontsize=8)
    axis.set_xlabel("frame", fontsize=7)
    axis.tick_params(labelsize=7)
  axes[0].set_ylabel("mIoU of a frame, %", fontsize=8)
  axes[0].legend(fontsize=7, frameon=False)
  figure.suptitle(title, fontsize=9)
  figure.tight_layout()
  figure.savefig(path)


def _averaged(values: np.ndarray, width: int) -> np.ndarray:
  """A moving average that leaves out NaN, as long as the values."""
  kernel, known = np.ones(min(width, len(values))), np.isfinite(values)
  total = np.convolve(np.where(known, values, 0), kernel, "same")
  count = np.convolve(known, kernel, "same")
  return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
