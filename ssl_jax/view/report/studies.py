"""Studies on the report page: the table of means, the differences, and the picture."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.log.run_log import read_json
from ssl_jax.studies.results import FILE, tables
from ssl_jax.view.report import plots

Rows = list[tuple[str, list[str]]]  # (name, cells)


class StudyRecord(NamedTuple):
  """The folder of a study, read into memory."""

  name: str
  folder: pathlib.Path
  found: dict[str, Any]  # the content of study.json


class StudySection(NamedTuple):
  """A study as text."""

  name: str
  scalars: list[str]
  means: Rows  # (run, mean and standard error of each scalar)
  differences: Rows  # (run - other, scalar, mean and standard error, interval, number of seeds)
  runs: list[tuple[str, str]]  # (run, its steps, seeds, and how its config differs from the first)
  missing: str
  picture: str  # as a data URI; "": there is none


def read(workdirs: Sequence[str | pathlib.Path]) -> tuple[list[StudyRecord], list[str | pathlib.Path]]:
  """Returns the studies among the folders, and the other folders."""
  found, others = [], []
  for workdir in workdirs:
    folder = pathlib.Path(workdir).resolve()
    if (folder / FILE).exists():
      cure = "run `ssl-jax study` again, which writes it anew"
      found.append(StudyRecord(folder.name, folder, read_json(folder / FILE, cure)))
    else:
      others.append(workdir)
  return found, others


def sections(studies: Sequence[StudyRecord], width: int) -> list[StudySection]:
  """The studies as text, with pictures at most `width` pixels wide."""
  return [_section(study, width) for study in studies]


def _section(study: StudyRecord, width: int) -> StudySection:
  found, picture = study.found, study.folder / "study.png"
  (header, *means), *more = tables(found)
  differences = [row for _, *rows in more for row in rows]
  runs = [
    (
      name,
      "; ".join([f"{run['steps']} steps", f"seeds {', '.join(map(str, run['seeds']))}", *run["changed"]]),
    )
    for name, run in found["runs"].items()
  ]
  return StudySection(
    study.name,
    header[1:],
    [(run, cells) for run, *cells in means],
    [(pair, cells) for pair, *cells in differences],
    runs,
    ", ".join(found["missing"]),
    plots.embed_picture(picture, width) if picture.exists() else "",
  )
