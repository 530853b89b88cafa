"""Reads the folder of a run: its config, metrics, evaluations and pictures, without network or image data."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.log.run_log import METRICS, STARTS, lines, read_json
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.view import knn_atlas

BASELINES = ("raw pixels", "colour statistics", "colour histogram", "untrained")


class Evaluation(NamedTuple):
  """The result of one task on one backbone: one JSON file under `evaluations/`."""

  step: int
  task: str
  backbone: str
  scalars: dict[str, float]
  protocol: dict[str, Any]
  pictures: tuple[pathlib.Path, ...]  # a confusion matrix, a heat map, bars or segmented images
  atlas: knn_atlas.KnnAtlas  # {}: none was written
  films: tuple[pathlib.Path, ...] = ()  # of a stream of frames: the animation and the strip

  @property
  def of_streams(self) -> bool:
    """Whether frames of videos were segmented as streams."""
    return self.protocol.get("task") == "ttt_video"

  @property
  def of_episodes(self) -> bool:
    """Whether a policy played episodes."""
    return self.protocol.get("task") == "deployment"


class Record(NamedTuple):
  """The folder of one run, read into memory."""

  name: str
  folder: pathlib.Path
  config: dict[str, Any]
  starts: list[dict[str, Any]]  # lines of starts.jsonl: one each time the run was started or resumed
  rows: list[dict[str, float]]  # lines of metrics.jsonl
  evaluations: list[Evaluation]  # of the last step with evaluations
  pictures: list[pathlib.Path]  # drawn by `ssl-jax show`

  @property
  def total_steps(self) -> int:
    """The number of steps of the whole run; 0: unknown."""
    return self.starts[-1]["total_steps"] if self.starts else 0


def read_records(workdirs: Sequence[str | pathlib.Path]) -> list[Record]:
  """Reads the runs in these folders; their names in the report are distinct.

  Raises: ValueError for a folder that does not exist, holds no run, or is named twice.
  """
  folders = [pathlib.Path(workdir).resolve() for workdir in workdirs]
  for i, folder in enumerate(folders):
    if folder in folders[:i]:
      raise ValueError(f"{workdirs[i]} is named twice; name each run once")
  return [_read(folder, name) for folder, name in zip(folders, _names(folders))]


def _names(folders: list[pathlib.Path]) -> list[str]:
  """The shortest ends of the paths, all with the same number of parts, that are distinct."""
  parts = 1
  while len({folder.parts[-parts:] for folder in folders}) < len(folders):
    parts += 1
  return ["/".join(folder.parts[-parts:]) for folder in folders]


def _read(folder: pathlib.Path, name: str) -> Record:
  if not folder.is_dir():
    raise ValueError(f"there is no folder {folder}; --workdir takes the folder of a run of `ssl-jax train`")
  rows, starts = (lines(folder / file) for file in (METRICS, STARTS))
  if not rows and not starts:
    raise ValueError(
      f"{folder} holds no run: neither metrics.jsonl nor starts.jsonl has a line; name the --workdir of "
      "`ssl-jax train`"
    )
  return Record(
    name,
    folder,
    starts[-1]["config"] if starts else _stored_config(folder),
    starts,
    rows,
    _evaluations(folder),
    sorted((folder / "pictures").glob("*.png")) + sorted(folder.glob("*.png")),
  )


def _stored_config(folder: pathlib.Path) -> dict[str, Any]:
  """The config in the last checkpoint, for old runs without a starts.jsonl; {} without a checkpoint."""
  with Checkpoints(folder) as checkpoints:
    steps = checkpoints.steps()
    return checkpoints.config(steps[-1])["config"] if steps else {}


def _evaluations(folder: pathlib.Path) -> list[Evaluation]:
  """The evaluations of the last evaluated step, sorted by task; baselines come after the trained network."""
  steps = {
    int(path.name.removeprefix("step")): path
    for path in (folder / "evaluations").glob("step*")
    if path.name.removeprefix("step").isdigit() and any(path.glob("*.json"))
  }
  if not steps:
    return []
  last = max(steps)
  found = [_evaluation(path, last) for path in sorted(steps[last].glob("*.json"))]
  return sorted(found, key=lambda e: (e.task, e.backbone in BASELINES, e.backbone))


def _evaluation(path: pathlib.Path, step: int) -> Evaluation:
  stored = read_json(path, "delete it and evaluate again")
  backbone = stored["protocol"]["backbone"]
  seen = path.with_suffix(".npz")
  pictures = (path.with_suffix(".png"), path.with_name(f"{path.stem}-confusion.png"))
  films = (path.with_suffix(".gif"), path.with_name(f"{path.stem}-strip.png"))
  return Evaluation(
    step,
    path.stem.removesuffix(f"-{backbone.replace(' ', '_')}"),
    backbone,
    stored["scalars"],
    stored["protocol"],
    tuple(picture for picture in pictures if picture.exists()),
    knn_atlas.load_atlas(seen) if seen.exists() else {},
    tuple(film for film in films if film.exists()),
  )
