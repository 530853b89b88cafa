"""The interactive plots of a report.

They are made with Bokeh, because its plots can be embedded in one file that needs no network, and its
tooltips can contain pictures.
"""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import (
  CDSView,
  ColumnDataSource,
  FactorRange,
  GroupFilter,
  HoverTool,
  Legend,
  LegendItem,
  Whisker,
)
from bokeh.palettes import Category10, Category20, Viridis256
from bokeh.plotting import figure
from bokeh.transform import dodge, linear_cmap
from PIL import Image
from sklearn.manifold import TSNE

from ssl_jax.tasks.corrupted import CLEAN
from ssl_jax.view.class_names import name_classes
from ssl_jax.view.errors import Bars, bars_of
from ssl_jax.view.knn_atlas import KnnAtlas
from ssl_jax.view.report.record import Evaluation, Record

# Colours that are visible on light and on dark pages.
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")
GREY = "#9aa5b1"
DASHES = ("solid", "dashed", "dotted", "dotdash")
POINTS = 1000  # the most points of a curve; longer curves are thinned
NAMED_CLASSES = 20  # the most classes for which a map has a legend
UNPLOTTED = ("step", "epoch", "input_images_per_second")  # the last is measured without training
KINDS = {  # metrics that share a plot, by words in their names; every other metric has a plot of its own
  "loss": ("loss",),
  "accuracy": ("accuracy", "top1", "top5"),
  "images per second": ("images_per_second",),
}
FIRST_PLOTS = ("loss", "accuracy", "learning rate", "images per second", "waiting fraction")
MEAN = "mean over corruptions"
TOOLS = "pan,box_zoom,reset,save"


def curves(records: Sequence[Record]) -> dict[str, figure]:
  """Plots the metrics of all runs over the training steps.

  Metrics of one kind share a plot. The plots share the range of their x axes, so that they zoom together.
  Returns: plots by title.
  """
  runs = [record for record in records if record.rows]
  names = dict.fromkeys(name for record in runs for row in record.rows for name in row)
  names = [name for name in names if name not in UNPLOTTED]
  sources = [ColumnDataSource(_columns(record.rows, names)) for record in runs]
  by_title, plots = {}, {}
  for name in names:
    by_title.setdefault(_title(name), []).append(name)
  for title in sorted(by_title, key=_order):
    shared = {"x_range": next(iter(plots.values())).x_range} if plots else {}
    plots[title] = _curve_plot(title, by_title[title], list(zip(runs, sources)), **shared)
  return plots


def maps(evaluations: Sequence[Evaluation]) -> dict[str, figure]:
  """Plots the test images of each atlas in two dimensions, found by t-SNE; a tooltip shows the image.

  Atlases with the same images share one data source, so that the page holds each image once.
  Returns: plots by backbone.
  """
  plots, sources = {}, {}
  for place, evaluation in enumerate(evaluations):
    atlas = evaluation.atlas
    names = class_names(atlas)
    images = atlas["image"].tobytes()
    if images not in sources:
      sources[images] = ColumnDataSource(
        {
          "image": [data_uri(image) for image in atlas["image"]],
          "label": atlas["label"],
          "class": [names[label] for label in atlas["label"]],
        }
      )
    flat = _flat(atlas["components"])
    predicted = [names[label] for label in atlas["prediction"]]
    columns = (f"x{place}", f"y{place}", f"guess{place}")
    for name, column in zip(columns, (flat[:, 0], flat[:, 1], predicted)):
      sources[images].add(column, name)
    plots[evaluation.backbone] = _map_plot(sources[images], columns, names, atlas["label"])
  return plots


def bars(evaluation: Evaluation) -> figure:
  """Plots the errors with and without test-time training as bars with their standard errors.

  Each row is a corruption at a severity; the last is their mean, if there are at least two.
  """
  without, adapted = _errors_of(evaluation.protocol)
  rows = [name.replace("_", " ") for name in adapted]
  plot = make_figure(
    y_range=FactorRange(factors=rows[::-1]), height=90 + 34 * len(rows), tools="save", x_axis_label="error, %"
  )
  series = (("without", without, 0.19, GREY), (evaluation.protocol["mode"], adapted, -0.19, COLOURS[0]))
  add_legend(
    plot,
    [(name, [_add_bars(plot, rows, name, table, shift, colour)]) for name, table, shift, colour in series],
  )
  plot.x_range.start = 0  # pyright: ignore[reportAttributeAccessIssue]  # a DataRange1d
  plot.ygrid.visible = False
  return plot


def class_names(atlas: KnnAtlas) -> list[str]:
  """The names of all classes of an atlas; a class without a name is called by its number."""
  given = [str(name) for name in atlas["class_names"]]
  count = 1 + max(int(atlas[name].max()) for name in ("label", "prediction", "neighbour_label"))
  return name_classes(given, max(count, len(given)))


def data_uri(image: np.ndarray) -> str:
  """Encodes an image uint8[H, W, 3] as a data URI, which HTML can contain."""
  return webp_uri(Image.fromarray(image), quality=80, method=6)


def embed_picture(path: pathlib.Path, width: int) -> str:
  """The data URI of a picture, reduced to `width` pixels if it is wider."""
  with Image.open(path) as image:
    image = image.convert("RGB")
  return data_uri(np.asarray(reduced(image, width)))


def reduced(image: Image.Image, width: int) -> Image.Image:
  """The image with at most this width."""
  if image.width <= width:
    return image
  return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def webp_uri(image: Image.Image, **options) -> str:
  """Encodes an image as a data URI, with options of Pillow's WEBP."""
  file = io.BytesIO()
  image.save(file, "WEBP", **options)
  return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _title(name: str) -> str:
  """The title of the plot that a metric belongs to."""
  kinds = (kind for kind, words in KINDS.items() if any(word in name for word in words))
  return next(kinds, name.replace("_", " "))


def _order(title: str) -> tuple[int, str]:
  """Sorts plots: FIRST_PLOTS, then the others by title."""
  return (FIRST_PLOTS.index(title) if title in FIRST_PLOTS else len(FIRST_PLOTS), title)


def _columns(rows: list[dict[str, float]], names: Sequence[str]) -> dict[str, np.ndarray]:
  """f64[<= POINTS] for each metric; NaN where a row lacks it. The last row is always kept."""
  kept = rows[::-1][:: -(-len(rows) // POINTS)][::-1]
  return {
    name: np.array([row.get(name, np.nan) for row in kept], np.float64) for name in ("step", "epoch", *names)
  }


def _curve_plot(
  title: str, names: Sequence[str], runs: Sequence[tuple[Record, ColumnDataSource]], **options
) -> figure:
  """One plot of some metrics: the colour of a line tells the run, its dashes tell the metric."""
  plot, items = make_figure(height=240, tools=TOOLS, x_axis_label="step", **options), []
  for i, (record, source) in enumerate(runs):
    for j, name in enumerate(names):
      if not any(name in row for row in record.rows):
        continue
      look: dict[str, Any] = dict(
        line_width=2, color=COLOURS[i % len(COLOURS)], line_dash=DASHES[j % len(DASHES)]
      )
      line = plot.line("step", name, source=source, **look)
      parts = (record.name if len(runs) > 1 else "", name.replace("_", " ") if len(names) > 1 else "")
      label = ", ".join(filter(None, parts))
      tooltips = [
        (label or title, f"@{{{name}}}{{0.0000a}}"),
        ("step", "@step{0,0}"),
        ("epoch", "@epoch{0.00}"),
      ]
      plot.add_tools(HoverTool(renderers=[line], mode="vline", tooltips=tooltips))
      items.append((label, [line]))
  if len(items) > 1 or len(runs) > 1:
    add_legend(plot, items)
  return plot


def _map_plot(
  source: ColumnDataSource, columns: tuple[str, str, str], names: Sequence[str], labels: np.ndarray
) -> figure:
  """One map. `columns` are the names of x, y and the predicted class in the source."""
  x, y, guess = columns
  plot = make_figure(height=460, tools=TOOLS, match_aspect=True)
  look: dict[str, Any] = dict(size=7, line_color=None, fill_alpha=0.8)
  present = np.unique(labels)
  if len(present) <= NAMED_CLASSES:
    palette, items = (Category10[10] if len(present) <= 10 else Category20[20]), []
    for place, label in enumerate(present):
      view = CDSView(filter=GroupFilter(column_name="class", group=names[label]))
      points = plot.scatter(x, y, source=source, view=view, color=palette[place], **look)
      items.append((names[label], [points]))
    add_legend(plot, items)
  else:
    colours = linear_cmap("label", Viridis256, int(present[0]), int(present[-1]))
    plot.scatter(x, y, source=source, color=colours, **look)
  tooltip = (
    '<div style="display:flex;gap:8px;align-items:center">'
    '<img src="@image" alt="" width="64" height="64" style="image-rendering:pixelated">'
    f"<div><b>@class</b><br>k-NN predicts @{guess}</div></div>"
  )
  plot.add_tools(HoverTool(limit=1, tooltips=tooltip))
  plot.xaxis.visible = plot.yaxis.visible = plot.grid.visible = False
  return plot


def _flat(components: np.ndarray) -> np.ndarray:
  """f32[N, 2]: the t-SNE of principal components f32[N, D]; for fewer than 10 images or 3 components, the
  first two.
  """
  if len(components) < 10 or components.shape[1] < 3:
    return np.pad(components, ((0, 0), (0, 2)))[:, :2]
  perplexity = min(30, (len(components) - 1) / 3)
  return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)


def _errors_of(protocol: Mapping[str, Any]) -> tuple[Bars, Bars]:
  """(Errors without test-time training, errors with it), in the same order, MEAN last.

  The protocol has no standard errors without test-time training: those of a fraction stand in their place,
  and 0 for that of their mean, which cannot be computed without the results of each image.
  """
  adapted = bars_of(protocol["error"], protocol["standard_error"])
  rows = max(protocol["test_rows"] - 1, 1)
  spread = {
    name: {severity: (error * (1 - error) / rows) ** 0.5 for severity, error in row.items()}
    for name, row in protocol["error_without"].items()
  }
  without = bars_of(protocol["error_without"], spread)
  corrupted = [name for name in adapted if name != CLEAN]
  if len(corrupted) > 1:
    for table, of_mean in ((without, 0.0), (adapted, protocol["mean"]["standard_error"])):
      table[MEAN] = (float(np.mean([table[name][0] for name in corrupted])), of_mean)
  return without, adapted


def _add_bars(plot: figure, rows: Sequence[str], name: str, table: Bars, shift: float, colour: str):
  """Adds one bar to each row, `shift` above its middle, with its standard error; returns the renderer."""
  error, spread = (np.array([row[i] for row in table.values()]) * 100 for i in range(2))
  source = ColumnDataSource(
    {"row": rows, "error": error, "spread": spread, "low": error - spread, "high": error + spread}
  )
  place = dodge("row", shift, range=plot.y_range)
  drawn = plot.hbar(place, right="error", height=0.34, source=source, color=colour)
  heads: dict[str, Any] = dict(upper_head=None, lower_head=None)
  whisker: dict[str, Any] = dict(
    base=place, lower="low", upper="high", dimension="width", line_color="#808080"
  )
  plot.add_layout(Whisker(source=source, **whisker, **heads))
  tooltips = [("@row", f"{name} @error{{0.0}} ± @spread{{0.0}}")]
  plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltips))
  return drawn


def make_figure(**options) -> figure:
  """An empty plot as wide as the page, with the options of Bokeh's figure."""
  plot = figure(sizing_mode="stretch_width", **options)
  plot.toolbar.logo, plot.toolbar.autohide = None, True
  return plot


def add_legend(plot: figure, items: list[tuple[str, list]]) -> None:
  """Adds a legend below the plot, where it takes no width on a phone; a click on an item hides it."""
  widest = max(len(label) for label, _ in items)
  legend = Legend(
    location="left",
    items=[
      LegendItem(label={"value": label}, renderers=renderers)  # pyright: ignore[reportArgumentType]
      for label, renderers in items
    ],
    click_policy="hide",
    orientation="horizontal",
    ncols=max(1, min(5, 40 // (widest + 3))),
    border_line_color=None,
  )
  plot.add_layout(legend, "below")
