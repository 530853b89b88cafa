"""What a report shows of learning along videos and episodes: films, strips, the error against the window."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Range1d, Whisker
from bokeh.plotting import figure
from PIL import Image

from ssl_jax.tasks.stream_averages import Averages
from ssl_jax.tasks.stream_options import Options
from ssl_jax.view.report import plots
from ssl_jax.view.report.record import Evaluation, Record
from ssl_jax.view.video_stream import COLUMNS, MILLISECONDS

FRAMES, FEWEST = 240, 12  # of all embedded films together, and of one of many films
LONGEST = 60  # frames of one film
# what must be equal in evaluations that differ in their window
_SHARED = ("backbone", "data", "test_split", "short_side", *Options._fields, *Averages._fields)


def pictures(evaluation: Evaluation, width: int, films: int = 1) -> list[tuple[str, str]]:
  """(Caption, data URI) of the film, the strip and the scores over time of one evaluation, those that exist.

  Args:
    width: of the largest in pixels; a film, which has many frames, gets half of it.
    films: on the page; where there are many, each has fewer frames.
  """
  frames = min(max(FRAMES // films, FEWEST), LONGEST)
  film, scores = f"the first video: {', '.join(COLUMNS)}", "The score of each frame over time"
  if evaluation.of_episodes:
    film = f"the first episode of each world: {', '.join(evaluation.protocol['arms'])}"
    scores = "Returns and errors with intervals of 95%"
  found = []
  for path in evaluation.films:
    if path.suffix == ".gif":
      found.append((film[0].upper() + film[1:], _embed_film(path, width // 2, frames)))
    else:
      found.append((f"Frames of {film}", plots.embed_picture(path, width)))
  return found + [(scores, plots.embed_picture(path, width)) for path in evaluation.pictures]


def windows(records: Sequence[Record]) -> dict[str, figure]:
  """Plots the error against the size of the window, of evaluations of a run that differ in nothing else.

  Returns: plots by title, one for each run and set of options with several windows.
  """
  groups: dict[tuple[str, ...], dict[int, Evaluation]] = {}
  for record in records:
    for evaluation in record.evaluations:
      if evaluation.of_streams:
        shared = [json.dumps(evaluation.protocol.get(name)) for name in _SHARED if name != "window"]
        groups.setdefault((record.name, *shared), {})[evaluation.protocol["window"]] = evaluation
  found = {}
  for (name, *_), by_window in groups.items():
    if len(by_window) > 1:
      title = f"{name}: {_words(next(iter(by_window.values())).protocol)}"
      while title in found:  # evaluations that differ in an option that the title does not tell
        title += " "
      found[title] = _window_plot(by_window)
  return found


def _words(protocol: dict[str, Any]) -> str:
  memory = "carried" if protocol["carry"] else "reset at each frame"
  return f"{protocol['backbone']}, objective {protocol['objective']}, {memory}"


def _window_plot(by_window: dict[int, Evaluation]) -> figure:
  """The mean error of a frame over the windows, all frames last, with its standard error."""
  order = sorted(by_window, key=lambda window: window or np.inf)
  names = [str(window) if window else "all" for window in order]
  scalars = [by_window[window].scalars for window in order]
  errors = [by_window[window].protocol["standard_error"] for window in order]
  plot = plots.make_figure(
    x_range=FactorRange(factors=names),
    height=260,
    tools="save",
    x_axis_label="frames of the window",
    y_axis_label="error, %",
  )
  bands, items = [], []
  for kind, key, colour in (("adapted", "miou", plots.COLOURS[0]), ("frozen", "miou_frozen", plots.GREY)):
    error = 100 * (1 - np.array([row[key] for row in scalars]))
    spread = 100 * np.nan_to_num([float(row[key]) for row in errors])  # NaN: a single block
    bands += [error - spread, error + spread]
    source = ColumnDataSource(
      {"window": names, "error": error, "spread": spread, "low": bands[-2], "high": bands[-1]}
    )
    look: dict[str, Any] = dict(source=source, color=colour)
    line = plot.line("window", "error", line_width=2, **look)
    points = plot.scatter("window", "error", size=7, **look)
    heads: dict[str, Any] = dict(upper_head=None, lower_head=None, line_color=colour)
    plot.add_layout(Whisker(source=source, base="window", lower="low", upper="high", **heads))
    tooltips = [("window", "@window"), (kind, "@error{0.00} ± @spread{0.00}")]
    plot.add_tools(HoverTool(renderers=[points], tooltips=tooltips))
    items.append((kind, [line, points]))
  low, high = float(np.min(bands)), float(np.max(bands))
  margin = 0.1 * (high - low) or 1.0
  plot.y_range = Range1d(start=low - margin, end=high + margin)  # whiskers do not count in Bokeh's own range
  plots.add_legend(plot, items)
  return plot


def _embed_film(path: pathlib.Path, width: int, most: int) -> str:
  """The data URI of an animation with at most this width and number of frames."""
  with Image.open(path) as film:
    count = getattr(film, "n_frames", 1)
    every = -(-count // most)
    frames = []
    for number in range(0, count, every):
      film.seek(number)
      frames.append(plots.reduced(film.convert("RGB"), width))
  first, *others = frames
  options = dict(save_all=True, append_images=others, duration=every * MILLISECONDS, loop=0)
  return plots.webp_uri(first, quality=50, method=4, **options)
