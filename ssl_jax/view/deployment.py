"""Pictures of policies at deployment: returns and errors by world, and films of the arms side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ssl_jax.view.errors import BAR_COLOURS, INK

HEIGHT = 144  # pixels of a frame
MILLISECONDS = 100  # of a frame of the film
STRIP = 8  # frames in the strip
_BAR, _TEXT = 20, 13  # pixels of the line of names, and of the names
_MEASURES = {"return": "return", "error": "squared error to the expert's action"}

Cells = Mapping[str, Mapping[str, Mapping[str, list[float]]]]  # by world, arm and measure: [value, low, high]
Films = Mapping[str, Mapping[str, np.ndarray]]  # by world and arm: uint8[T, S, S, 3]


def plot_cells(path: str | pathlib.Path, cells: Cells, *, title: str) -> None:
  """Draws the returns and the errors of each arm in each world, with their intervals."""
  measures = [m for m in _MEASURES if all(m in row for arms in cells.values() for row in arms.values())]
  arms = list(next(iter(cells.values())))
  figure = Figure(figsize=(1.5 + 1.3 * len(cells), 2.4 * len(measures) + 0.5), dpi=110, layout="constrained")
  for axes, measure in zip(figure.subplots(len(measures), squeeze=False).ravel(), measures):
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
      value, low, high = np.array([cells[world][arm][measure] for world in cells]).T
      places = np.arange(len(cells)) + (number - (len(arms) - 1) / 2) * width
      spread = np.maximum([value - low, high - value], 0)
      axes.bar(
        places,
        value,
        width,
        yerr=spread,
        label=arm,
        color=BAR_COLOURS[number % len(BAR_COLOURS)],
        error_kw={"elinewidth": 0.8, "ecolor": INK},
      )
    axes.set_xticks(range(len(cells)), [world.replace("_", "\n") for world in cells], fontsize=8)
    axes.set_ylabel(_MEASURES[measure], fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
  figure.axes[0].legend(fontsize=7, frameon=False, ncols=len(arms))
  figure.suptitle(title, fontsize=9)
  figure.savefig(path)


def write_film(path: pathlib.Path, films: Films) -> None:
  """Writes `path`.gif, a row for each world and a column for each arm, and `path`-strip.png."""
  rows = {world: arms for world, arms in films.items() if all(len(film) for film in arms.values())}
  if not rows:
    return
  length = max(len(film) for arms in rows.values() for film in arms.values())
  frames = [_frame(rows, moment) for moment in range(length)]
  first, *others = [frame.quantize(128) for frame in frames]
  first.save(f"{path}.gif", save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
  places = np.unique(np.linspace(0, length - 1, STRIP).round().astype(int))
  strip = np.concatenate([np.asarray(frames[place]) for place in places], 1)
  Image.fromarray(strip).save(f"{path}-strip.png")


def _frame(rows: Films, moment: int) -> Image.Image:
  """One frame of the film: the moment of every episode, or its last one."""
  tiles = [
    (world, arm, film[min(moment, len(film) - 1)])
    for world, arms in rows.items()
    for arm, film in arms.items()
  ]
  columns = len(next(iter(rows.values())))
  canvas = Image.new("RGB", (columns * HEIGHT, len(rows) * (HEIGHT + _BAR)), "white")
  draw = ImageDraw.Draw(canvas)
  for number, (world, arm, pixels) in enumerate(tiles):
    left, top = number % columns * HEIGHT, number // columns * (HEIGHT + _BAR)
    canvas.paste(Image.fromarray(pixels).resize((HEIGHT, HEIGHT)), (left, top + _BAR))
    draw.text((left + 3, top + 2), f"{world}, {arm}", fill="black", font=ImageFont.load_default(_TEXT))
  return canvas
