"""The report about runs and studies: one HTML file that needs no network and is small enough to send."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from bokeh.embed import components
from bokeh.resources import Resources
from matplotlib import colormaps

from ssl_jax.config.schema import differences
from ssl_jax.view import show
from ssl_jax.view.report import plots, streams, studies
from ssl_jax.view.report.record import BASELINES, Evaluation, Record, read_records
from ssl_jax.view.request import PictureRequest

LIMIT = 5_000_000  # bytes of a page
WIDTHS = (1600, 1100, 750, 500)  # of pictures, in pixels; the first with which the page is within the limit

Facts = list[tuple[str, str]]  # (name, value)


class EmbeddedPlots(NamedTuple):
  """The interactive plots of a page, as HTML by title, and the script that draws them."""

  curves: dict[str, str]
  bars: dict[str, str]
  maps: dict[str, str]
  windows: dict[str, str]
  script: str  # "": there is no plot


class Table(NamedTuple):
  """The scalars of one task, as text."""

  title: str
  columns: list[str]  # one for each run and backbone
  rows: list[tuple[str, list[str]]]  # (what was measured, its value in each column)


class Heat(NamedTuple):
  """A table of errors, whose cells have a background colour that shows the error."""

  title: str
  severities: list[str]  # and "mean"
  rows: list[tuple[str, list[dict[str, str]]]]  # (corruption, its cells)


def report(
  workdirs: Sequence[str | pathlib.Path], output: str | pathlib.Path = "", *, draw: bool = True
) -> pathlib.Path:
  """Writes the page about the runs and studies in `workdirs`.

  Args:
    output: the .html file to write; "": report.html in the first of `workdirs`.
    draw: whether reconstructions (MAE) or colours (colorization) that have not been drawn yet are drawn
      first, which opens checkpoint and data.
  Returns: the path of the page.
  Raises: ValueError for a folder without a run, an output that is not a .html file, or a page that is too
    large even with small pictures.
  """
  path = pathlib.Path(output or pathlib.Path(workdirs[0]) / "report.html")
  if path.suffix != ".html":
    raise ValueError(f"--output={output} is not a .html file; give it that suffix")
  studied, workdirs = studies.read(workdirs)
  records = read_records(workdirs)
  if draw and any([_draw_missing(record) for record in records]):
    records = read_records(workdirs)
  pages = (_render(records, studied, width).encode() for width in WIDTHS)
  page = next((page for page in pages if len(page) < LIMIT), None)
  if page is None:
    raise ValueError(
      f"the report about {len(records)} runs is larger than {LIMIT / 1e6:.0f} MB even with small pictures; "
      "name fewer runs"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(page)
  print(f"wrote {path}, {len(page) / 1e6:.1f} MB")
  return path


def _draw_missing(record: Record) -> bool:
  """Draws what the network restores of test images, unless it was drawn before; returns whether it drew."""
  picture = show.RESTORED.get(record.config["method"]["name"]) if record.config else None
  if picture is None or any(path.stem == picture for path in record.pictures):
    return False
  try:
    show.show([picture], PictureRequest(workdir=str(record.folder)))
  except (ValueError, OSError) as error:  # the rest of the page does not need this picture
    print(f"{record.name}: the report has no {picture}: {error}")
    return False
  return True


def _render(records: Sequence[Record], studied: Sequence[studies.StudyRecord], width: int) -> str:
  """The page as HTML, with pictures at most `width` pixels wide."""
  embedded = _embed_plots(records)
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("ssl_jax.view.report", "."),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  bokeh = Resources(mode="inline", components=["bokeh"], minified=True).js_raw if embedded.script else []
  return environment.get_template("page.html.jinja").render(
    title=" and ".join(record.name for record in (*studied, *records)),
    studies=studies.sections(studied, width),
    records=records,
    summaries=[_summary(record) for record in records],
    changed=_differences(records),
    tables=_tables(records),
    protocols=[(_name(record, e), sorted(e.protocol.items())) for record, e in _evaluations(records)],
    neighbours=[
      (f"{record.name}: {e.backbone}", _neighbours(e)) for record, e in _evaluations(records) if e.atlas
    ],
    heats=[
      _heat(record, e) for record, e in _evaluations(records) if "error" in e.protocol and not _adapted(e)
    ],
    streams=_streams(records, width),
    pictures=_pictures(records, width),
    bokeh=bokeh,
    **embedded._asdict(),
  )


def _evaluations(records: Sequence[Record]) -> Iterator[tuple[Record, Evaluation]]:
  """All evaluations of all runs, each with its run."""
  return ((record, evaluation) for record in records for evaluation in record.evaluations)


def _name(record: Record, evaluation: Evaluation) -> str:
  return f"{record.name}: {evaluation.task}, {evaluation.backbone}"


def _adapted(evaluation: Evaluation) -> bool:
  """Whether an evaluation compares errors with and without test-time training."""
  return "error_without" in evaluation.protocol


def _embed_plots(records: Sequence[Record]) -> EmbeddedPlots:
  curves = plots.curves(records)
  bars = {f"{record.name}: {e.task}": plots.bars(e) for record, e in _evaluations(records) if _adapted(e)}
  maps = {
    f"{record.name}: {backbone}": plot
    for record in records
    for backbone, plot in plots.maps([e for e in record.evaluations if e.atlas]).items()
  }
  groups = (curves, bars, maps, streams.windows(records))
  drawn = [plot for group in groups for plot in group.values()]
  script, places = components(drawn) if drawn else ("", ())
  html = iter(places)
  return EmbeddedPlots(*({title: next(html) for title in group} for group in groups), script=script)


def _summary(record: Record) -> Facts:
  """What ran. Facts that are unknown are left out."""
  config, start = record.config, record.starts[-1] if record.starts else {}
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
  found += _progress(record) if record.rows else []
  found += _machine(record.starts) if start else []
  return [(name, value) for name, value in found if value]


def _progress(record: Record) -> Facts:
  """How far a run has come, and how fast."""
  last = record.rows[-1]
  total = f" of {record.total_steps:,}" if record.total_steps else ""
  speed = np.median([row["images_per_second"] for row in record.rows])
  return [
    ("steps", f"{last['step']:,}{total}"),
    ("epochs", f"{last['epoch']:.1f}"),
    ("loss", f"{last['loss']:.4f}"),
    ("images per second", f"{speed:,.0f} (median)"),
  ]


def _machine(starts: Sequence[Mapping[str, Any]]) -> Facts:
  """Where and when a run was started and resumed, and with which software."""
  start = starts[-1]
  began = datetime.datetime.fromtimestamp(starts[0]["began"]).strftime("%Y-%m-%d %H:%M")
  resumed = ", ".join(str(line["step"]) for line in starts[1:])
  return [
    ("imported", start.get("imported", "")),
    ("device", start["device"]),
    ("processes", str(start["processes"])),
    ("started", began),
    ("resumed", f"at step{'s' * (len(starts) > 2)} {resumed}" if resumed else "never"),
    ("versions", ", ".join(f"{name} {version}" for name, version in start["versions"].items())),
    ("commit", start["commit"]),
  ]


def _differences(records: Sequence[Record]) -> Facts:
  """How the config of every run but the first differs from that of the first: (run, difference)."""
  return [
    (record.name, line)
    for record in records[1:]
    for line in differences(records[0].config, record.config, "config")
  ]


def _tables(records: Sequence[Record]) -> list[Table]:
  """One table for each task."""
  found = []
  for task in dict.fromkeys(e.task for _, e in _evaluations(records)):
    chosen = [(record, e) for record, e in _evaluations(records) if e.task == task]
    columns = [f"{record.name}: {e.backbone}" if len(records) > 1 else e.backbone for record, e in chosen]
    names = dict.fromkeys(name for _, e in chosen for name in e.scalars)
    rows = [
      (name.replace("_", " "), [_value(name, e.scalars.get(name)) for _, e in chosen]) for name in names
    ]
    steps = " and ".join(dict.fromkeys(str(e.step) for _, e in chosen))
    found.append(Table(f"{task}, step {steps}", columns, rows))
  return found


def _value(name: str, value: float | None) -> str:
  """A scalar as text: fractions in %, losses as they are; "" if there is none."""
  return "" if value is None else f"{value:.4f}" if "loss" in name else f"{100 * value:.1f}"


def _neighbours(evaluation: Evaluation) -> list[dict[str, Any]]:
  """For each query image of an atlas: the image, its class, and the same of its neighbours."""
  atlas, names = evaluation.atlas, plots.class_names(evaluation.atlas)
  found = []
  for row, image in enumerate(atlas["query_image"]):
    label = atlas["label"][row]
    near = zip(atlas["neighbour_image"][row], atlas["neighbour_label"][row], atlas["similarity"][row])
    neighbours = [
      {
        "image": plots.data_uri(other),
        "name": names[other_label],
        "right": other_label == label,
        "similarity": f"{similarity:.2f}",
      }
      for other, other_label, similarity in near
    ]
    found.append({"image": plots.data_uri(image), "name": names[label], "near": neighbours})
  return found


def _heat(record: Record, evaluation: Evaluation) -> Heat:
  errors = evaluation.protocol["error"]
  severities = list(next(iter(errors.values())))
  rows = []
  for name, row in errors.items():
    cells = [row[s] for s in severities]
    rows.append((name.replace("_", " "), [_cell(value) for value in [*cells, float(np.mean(cells))]]))
  return Heat(_name(record, evaluation), [*severities, "mean"], rows)


def _cell(error: float) -> dict[str, str]:
  """The text of a cell and its colours."""
  red, green, blue, _ = (round(255 * part) for part in colormaps["magma_r"](error))
  return {
    "text": _value("error", error),
    "colour": f"rgb({red},{green},{blue})",
    "ink": "#fff" if error > 0.5 else "#1c2733",
  }


def _streams(records: Sequence[Record], width: int) -> list[tuple[str, list[tuple[str, str]]]]:
  """(Name, pictures with captions) of every evaluation of streams or episodes."""
  chosen = [(_name(record, e), e) for record, e in _evaluations(records) if e.of_streams or e.of_episodes]
  return [(name, streams.pictures(e, width, len(chosen))) for name, e in chosen]


def _pictures(records: Sequence[Record], width: int) -> list[tuple[str, str]]:
  """(Caption, data URI) of the pictures of each run and of the evaluations of its trained network."""
  found = []
  for record in records:
    named = [(path.stem, path) for path in record.pictures]
    named += [
      (f"{e.task}, {e.backbone}" + (", confusion" if picture.stem.endswith("-confusion") else ""), picture)
      for e in record.evaluations
      if not ("error" in e.protocol or e.of_streams or e.of_episodes or e.backbone in BASELINES)
      for picture in e.pictures
    ]
    found += [(f"{record.name}: {name}", plots.embed_picture(path, width)) for name, path in named]
  return found
