"""One HTML file of one run or several: no network, light and dark, small enough to send."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from bokeh.embed import components
from bokeh.resources import Resources
from matplotlib import colormaps
from PIL import Image

from ssl_jax.config.schema import differences
from ssl_jax.view import show
from ssl_jax.view.report import plots
from ssl_jax.view.report.record import BASELINES, Evaluation, Record, read

LIMIT = 5_000_000  # bytes of a page
WIDTHS = (1600, 1100, 750, 500)  # of pictures, the widest that fits the limit


class Heat(NamedTuple):
  """A table of errors whose cells are coloured by them."""

  title: str
  severities: list[str]
  rows: list[tuple[str, list[dict[str, str]]]]


def report(
  workdirs: Sequence[str | pathlib.Path], output: str | pathlib.Path = "", *, draw: bool = True
) -> pathlib.Path:
  """Writes the page of the runs in `workdirs` to `output`, default report.html in the first; returns its path.

  Args:
    draw: what a network restores of test images (MAE, colorization) is drawn where it was not yet: this opens checkpoint and data.
  Raises: ValueError for a folder without a run, an output that is no .html, or a page that is too large even with small pictures.
  """
  path = pathlib.Path(output or pathlib.Path(workdirs[0]) / "report.html")
  if path.suffix != ".html":
    raise ValueError(f"--output={output} is not a .html file; give it that suffix")
  records = read(workdirs)
  if draw and any([_draw(record) for record in records]):
    records = read(workdirs)
  page = next((page for width in WIDTHS if len(page := _render(records, width).encode()) < LIMIT), None)
  if page is None:
    raise ValueError(f"a page of {len(records)} runs is over {LIMIT / 1e6:.0f} MB; name fewer")
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(page)
  print(f"wrote {path}, {len(page) / 1e6:.1f} MB")
  return path


def _draw(record: Record) -> bool:
  """Draws what is missing; whether there is a new picture."""
  picture = show.RESTORED.get(record.config["method"]["name"]) if record.config else None
  if picture is None or any(path.stem == picture for path in record.pictures):
    return False
  try:
    show.show([picture], show.Wanted(workdir=str(record.folder)))
  except (ValueError, OSError) as error:  # a page without it is better than none
    print(f"{record.name}: without {picture}, since {error}")
    return False
  return True


def _render(records: Sequence[Record], width: int) -> str:
  curves = plots.curves(records)
  mapped = {record.name: plots.maps([e for e in record.evaluations if e.atlas]) for record in records}
  learned = {
    f"{record.name}: {e.task}": plots.bars(e)
    for record in records
    for e in record.evaluations
    if "error_without" in e.protocol
  }
  drawn = {
    **{("curve", title): plot for title, plot in curves.items()},
    **{("bars", title): plot for title, plot in learned.items()},
    **{("map", name, backbone): plot for name, found in mapped.items() for backbone, plot in found.items()},
  }
  script, divisions = (
    components({str(i): plot for i, plot in enumerate(drawn.values())}) if drawn else ("", {})
  )
  place = dict(zip(drawn, divisions.values()))
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("ssl_jax.view.report", "."),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  heats = [
    _heat(record, e)
    for record in records
    for e in record.evaluations
    if "error" in e.protocol and "error_without" not in e.protocol
  ]
  return environment.get_template("page.html.jinja").render(
    title=" and ".join(record.name for record in records),
    records=records,
    summaries=[_summary(record) for record in records],
    changed=_differences(records),
    curves={title: place["curve", title] for title in curves},
    tables=_tables(records),
    protocols=[
      (f"{record.name}: {e.task}, {e.backbone}", sorted(e.protocol.items()))
      for record in records
      for e in record.evaluations
    ],
    neighbours=[
      (f"{record.name}: {e.backbone}", _neighbours(e))
      for record in records
      for e in record.evaluations
      if e.atlas
    ],
    maps=[
      (f"{name}: {backbone}", place["map", name, backbone])
      for name, found in mapped.items()
      for backbone in found
    ],
    heats=heats,
    bars={title: place["bars", title] for title in learned},
    pictures=_pictures(records, width),
    bokeh=Resources(mode="inline", components=["bokeh"], minified=True).js_raw if drawn else [],
    script=script,
  )


def _summary(record: Record) -> list[tuple[str, str]]:
  """What ran, as (what, answer); what is not known is left out."""
  config, last, start = (
    record.config,
    record.rows[-1] if record.rows else {},
    record.starts[-1] if record.starts else {},
  )
  found = []
  if config:
    found += [
      ("method", config["method"]["name"]),
      ("encoder", config["encoder"]["name"]),
      ("data", f"{config['data']['name']} {config['data']['split']}"),
    ]
  if start:
    found += [
      ("parameters", f"{start['parameters'] / 1e6:.2f} M"),
      ("images", f"{start['data']['num_examples']:,}"),
    ]
  if last:
    total = f" of {record.total_steps:,}" if record.total_steps else ""
    found += [
      ("steps", f"{last['step']:,}{total}"),
      ("epochs", f"{last['epoch']:.1f}"),
      ("loss", f"{last['loss']:.4f}"),
      ("images a second", f"{np.median([row['images_per_second'] for row in record.rows]):,.0f} (median)"),
    ]
  if start:
    when = datetime.datetime.fromtimestamp(record.starts[0]["began"]).strftime("%Y-%m-%d %H:%M")
    found += [("imported", start["imported"])] if "imported" in start else []
    found += [
      ("device", start["device"]),
      ("processes", str(start["processes"])),
      ("started", when),
      (
        "resumed",
        f"{len(record.starts) - 1} times at " + ", ".join(str(s["step"]) for s in record.starts[1:])
        if len(record.starts) > 1
        else "never",
      ),
      ("versions", ", ".join(f"{name} {version}" for name, version in start["versions"].items())),
      ("commit", start["commit"]),
    ]
  return [(name, value) for name, value in found if value]


def _differences(records: Sequence[Record]) -> list[tuple[str, str]]:
  """Of every run but the first, how its config differs from the first's."""
  return [
    (record.name, line)
    for record in records[1:]
    for line in differences(records[0].config, record.config, "config")
  ]


def _tables(records: Sequence[Record]) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
  """By task: (what was measured, columns, rows of figures in %), a column a run and backbone."""
  tasks = list(dict.fromkeys(e.task for record in records for e in record.evaluations))
  found = []
  for task in tasks:
    columns = [(record, e) for record in records for e in record.evaluations if e.task == task]
    names = [f"{record.name}: {e.backbone}" if len(records) > 1 else e.backbone for record, e in columns]
    figures = dict.fromkeys(name for _, e in columns for name in e.scalars)
    rows = [
      (name.replace("_", " "), [_figure(name, e.scalars.get(name)) for _, e in columns]) for name in figures
    ]
    found.append(
      (f"{task}, step " + " and ".join(dict.fromkeys(str(e.step) for _, e in columns)), names, rows)
    )
  return found


def _figure(name: str, value: float | None) -> str:
  """Shares in %, losses as they are; "" where there is none."""
  return "" if value is None else f"{value:.4f}" if "loss" in name else f"{100 * value:.1f}"


def _neighbours(evaluation: Evaluation) -> list[dict[str, Any]]:
  """A row a test image: itself, and its neighbours, right or wrong."""
  seen, names = evaluation.atlas, plots.class_names(evaluation.atlas)
  found = []
  for row, image in enumerate(seen["query_image"]):
    label = seen["label"][row]
    near = zip(seen["neighbour_image"][row], seen["neighbour_label"][row], seen["similarity"][row])
    found.append(
      {
        "image": plots.data_uri(image),
        "name": names[label],
        "near": [
          {
            "image": plots.data_uri(other),
            "name": names[its],
            "right": its == label,
            "similarity": f"{similarity:.2f}",
          }
          for other, its, similarity in near
        ],
      }
    )
  return found


def _heat(record: Record, evaluation: Evaluation) -> Heat:
  errors = evaluation.protocol["error"]
  severities = list(next(iter(errors.values())))
  rows = []
  for name, row in errors.items():
    cells = [row[s] for s in severities]
    rows.append((name.replace("_", " "), [_cell(value) for value in [*cells, float(np.mean(cells))]]))
  return Heat(f"{record.name}: {evaluation.task}, {evaluation.backbone}", [*severities, "mean"], rows)


def _cell(error: float) -> dict[str, str]:
  red, green, blue, _ = (round(255 * part) for part in colormaps["magma_r"](error))
  return {
    "text": _figure("error", error),
    "colour": f"rgb({red},{green},{blue})",
    "ink": "#fff" if error > 0.5 else "#1c2733",
  }


def _pictures(records: Sequence[Record], width: int) -> list[tuple[str, str]]:
  """What was drawn: of the run itself, and of its evaluations the confusions of the trained network."""
  found = []
  for record in records:
    named = [(path.stem, path) for path in record.pictures]
    named += [
      (f"{e.task}, {e.backbone}", e.picture)
      for e in record.evaluations
      if e.picture and "error" not in e.protocol and e.backbone not in BASELINES
    ]
    found += [(f"{record.name}: {name}", _shrunk(path, width)) for name, path in named]
  return found


def _shrunk(path: pathlib.Path, width: int) -> str:
  with Image.open(path) as image:
    image = image.convert("RGB")
  if image.width > width:
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
  return plots.data_uri(np.asarray(image))
