"""The interactive plots of a report, by Bokeh: it embeds in one file without a network, and its tooltips can hold pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
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

from ssl_jax.view import pictures
from ssl_jax.view.knn_atlas import Atlas
from ssl_jax.view.report.record import Evaluation, Record

COLOURS = (
  "#4c78a8",
  "#f58518",
  "#54a24b",
  "#b279a2",
  "#e45756",
  "#72b7b2",
  "#9d755d",
)  # seen on light and dark
DASHES = ("solid", "dashed", "dotted", "dotdash")
POINTS = 1000  # of a curve; longer ones are thinned
NAMED_CLASSES = 20  # up to so many stand in the legend of a map
UNPLOTTED = ("step", "epoch", "input_images_per_second")  # the last is no part of what the run did
FIELDS = {  # what belongs in one plot, by words of their names; everything else has a plot of its own
  "loss": ("loss",),
  "accuracy": ("accuracy", "top1", "top5"),
  "images a second": ("images_per_second",),
}
TOOLS = "pan,box_zoom,reset,save"


def curves(records: Sequence[Record]) -> dict[str, Any]:
  """By title, a plot over the steps of all runs; the plots share their range."""
  told = [record for record in records if record.rows]
  fields = [
    name
    for name in dict.fromkeys(name for record in told for row in record.rows for name in row)
    if name not in UNPLOTTED
  ]
  titles = {
    name: next(
      (title for title, words in FIELDS.items() if any(word in name for word in words)),
      name.replace("_", " "),
    )
    for name in fields
  }
  sources = {record.name: ColumnDataSource(_columns(record.rows, fields)) for record in told}
  plots = {}
  for title in sorted(set(titles.values()), key=_order):
    plot = _figure(
      height=240,
      tools=TOOLS,
      x_axis_label="step",
      **({"x_range": next(iter(plots.values())).x_range} if plots else {}),
    )
    named, items = [name for name in fields if titles[name] == title], []
    for i, record in enumerate(told):
      for j, name in enumerate(named):
        if not any(name in row for row in record.rows):
          continue
        line = plot.line(
          "step",
          name,
          source=sources[record.name],
          line_width=2,
          color=COLOURS[i % len(COLOURS)],
          line_dash=DASHES[j % len(DASHES)],
        )
        label = ", ".join(
          filter(
            None, (record.name if len(told) > 1 else "", name.replace("_", " ") if len(named) > 1 else "")
          )
        )
        plot.add_tools(
          HoverTool(
            renderers=[line],
            mode="vline",
            tooltips=[
              (label or title, f"@{{{name}}}{{0.0000a}}"),
              ("step", "@step{0,0}"),
              ("epoch", "@epoch{0.00}"),
            ],
          )
        )
        items.append((label, [line]))
    if len(items) > 1 or len(told) > 1:
      _legend(plot, items)
    plots[title] = plot
  return plots


def _order(title: str) -> tuple[int, str]:
  known = ("loss", "accuracy", "learning rate", "images a second", "waiting fraction")
  return (known.index(title) if title in known else len(known), title)


def _columns(rows: list[dict[str, float]], fields: list[str]) -> dict[str, np.ndarray]:
  kept = rows[::-1][:: -(-len(rows) // POINTS)][::-1]  # the last is among them
  return {
    name: np.array([row.get(name, np.nan) for row in kept], np.float64) for name in ("step", "epoch", *fields)
  }


def maps(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
  """By backbone, the test images of its atlas in two dimensions by t-SNE, a picture under the pointer.

  Evaluations of the same images share what is under it.
  """
  plots, sources = {}, {}
  for place, evaluation in enumerate(evaluations):
    seen = evaluation.atlas
    names = class_names(seen)
    images = seen["image"].tobytes()
    if images not in sources:
      sources[images] = ColumnDataSource(
        {
          "image": [data_uri(image) for image in seen["image"]],
          "label": seen["label"],
          "class": [names[label] for label in seen["label"]],
        }
      )
    source = sources[images]
    x, y, guess = (f"{axis}{place}" for axis in ("x", "y", "guess"))
    flat = _flat(seen["components"])
    for name, column in (
      (x, flat[:, 0]),
      (y, flat[:, 1]),
      (guess, [names[label] for label in seen["prediction"]]),
    ):
      source.add(column, name)
    plots[evaluation.backbone] = _map(source, x, y, guess, names, seen["label"])
  return plots


def _map(source: ColumnDataSource, x: str, y: str, guess: str, names: Sequence[str], labels: np.ndarray):
  plot = _figure(height=460, tools=TOOLS, match_aspect=True)
  look = dict(size=7, line_color=None, fill_alpha=0.8)
  present = np.unique(labels)
  if len(present) <= NAMED_CLASSES:
    palette, items = (Category10[10] if len(present) <= 10 else Category20[20]), []
    for place, label in enumerate(present):
      view = CDSView(filter=GroupFilter(column_name="class", group=names[label]))
      items.append(
        (names[label], [plot.scatter(x, y, source=source, view=view, color=palette[place], **look)])
      )
    _legend(plot, items)
  else:
    plot.scatter(
      x, y, source=source, color=linear_cmap("label", Viridis256, int(present[0]), int(present[-1])), **look
    )
  plot.add_tools(
    HoverTool(
      limit=1,
      tooltips=(
        f'<div style="display:flex;gap:8px;align-items:center"><img src="@image" alt="" width="64" height="64" style="image-rendering:pixelated">'
        f"<div><b>@class</b><br>k-NN says @{guess}</div></div>"
      ),
    )
  )
  plot.xaxis.visible = plot.yaxis.visible = plot.grid.visible = False
  return plot


def _flat(components: np.ndarray) -> np.ndarray:
  """f32[N, 2]: t-SNE; of a handful of images the two first components themselves."""
  if len(components) < 10 or components.shape[1] < 3:
    return np.pad(components, ((0, 0), (0, 2)))[:, :2]
  return TSNE(perplexity=min(30, (len(components) - 1) / 3), init="pca", random_state=0).fit_transform(
    components
  )


def bars(evaluation: Evaluation):
  """Errors with and without learning on the test images, with their standard errors; a row a condition, the mean of the corrupted last."""
  protocol = evaluation.protocol
  learned = pictures.bars_of(protocol["error"], protocol["standard_error"])
  of_shares = {
    name: {
      severity: (error * (1 - error) / max(protocol["test_rows"] - 1, 1)) ** 0.5
      for severity, error in row.items()
    }
    for name, row in protocol["error_without"].items()
  }
  without = pictures.bars_of(protocol["error_without"], of_shares)
  rows = [name.replace("_", " ") for name in learned]
  harmed = [name for name in learned if name != "clean"]
  if len(harmed) > 1:
    rows.append("mean of the corrupted")
    for table, spread in (
      (without, 0.0),
      (learned, protocol["mean"]["standard_error"]),
    ):  # of the first it is not known
      table["mean"] = (float(np.mean([table[name][0] for name in harmed])), spread)
  plot = _figure(
    y_range=FactorRange(*rows[::-1]), height=90 + 34 * len(rows), tools="save", x_axis_label="error, %"
  )
  items = []
  for name, table, shift, colour in (
    ("without", without, 0.19, "#9aa5b1"),
    (protocol["mode"], learned, -0.19, COLOURS[0]),
  ):
    error, spread = (np.array([row[i] for row in table.values()]) * 100 for i in range(2))
    source = ColumnDataSource(
      {"row": rows, "error": error, "spread": spread, "low": error - spread, "high": error + spread}
    )
    drawn = plot.hbar(
      dodge("row", shift, range=plot.y_range), right="error", height=0.34, source=source, color=colour
    )
    plot.add_layout(
      Whisker(
        base=dodge("row", shift, range=plot.y_range),
        lower="low",
        upper="high",
        source=source,
        dimension="width",
        line_color="#808080",
        upper_head=None,
        lower_head=None,
      )
    )
    plot.add_tools(
      HoverTool(renderers=[drawn], tooltips=[("@row", f"{name} @error{{0.0}} ± @spread{{0.0}}")])
    )
    items.append((name, [drawn]))
  _legend(plot, items)
  plot.x_range.start = 0
  plot.ygrid.visible = False
  return plot


def _figure(**options):
  plot = figure(sizing_mode="stretch_width", **options)
  plot.toolbar.logo, plot.toolbar.autohide = None, True
  return plot


def _legend(plot, items: list[tuple[str, list]]) -> None:
  """Below the plot, so that it takes no width on a phone; a click hides what it names."""
  widest = max(len(label) for label, _ in items)
  plot.add_layout(
    Legend(
      location="left",
      items=[LegendItem(label={"value": label}, renderers=renderers) for label, renderers in items],
      click_policy="hide",
      orientation="horizontal",
      ncols=max(1, min(5, 40 // (widest + 3))),
      border_line_color=None,
    ),
    "below",
  )


def class_names(seen: Atlas) -> list[str]:
  """A name for every class that occurs; one without a name is called by its number."""
  given = [str(name) for name in seen["class_names"]]
  count = 1 + max(int(seen[name].max()) for name in ("label", "prediction", "neighbour_label"))
  return [given[i] if i < len(given) else str(i) for i in range(max(count, len(given)))]


def data_uri(image: np.ndarray) -> str:
  """An image uint8[H, W, 3] in a form that HTML can hold."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, "WEBP", quality=80, method=6)
  return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
