"""The jobs of a study: each run with each of its seeds, completely checked, and what of it is done."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from ssl_jax import tasks
from ssl_jax.config.checked import leaves, nearest
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.recipe_files import load_recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check, differences, to_json
from ssl_jax.core import DataSpec
from ssl_jax.log.run_log import read_json
from ssl_jax.run.assembly import assemble, open_data
from ssl_jax.run.identity import HARMLESS
from ssl_jax.studies.definition import Recipe, Study

DAMAGED = "delete it; the study makes it again"


class Job(NamedTuple):
  """One run of the study with one seed."""

  run: str
  seed: int
  folder: pathlib.Path  # the workdir of the run
  config: TrainConfig
  evaluations: dict[str, EvaluateConfig]  # by name
  start: tuple[str, int] | None  # the key of the job whose network it starts from
  total_steps: int

  @property
  def key(self) -> tuple[str, int]:
    return self.run, self.seed

  @property
  def name(self) -> str:
    return f"{self.run}, seed {self.seed}"


def make_jobs(study: Study, output: str | pathlib.Path) -> list[Job]:
  """Lists the jobs of a study, whose folders are `output`/runs/RUN/seedN.

  Opens the data and assembles each run, but compiles nothing.
  Raises: ValueError for an unknown recipe, an override or a scalar that cannot be, or wrong options.
  """
  runs = pathlib.Path(output).expanduser() / "runs"
  measured = {
    name: _evaluation(each.config, each.overrides, f"evaluations.{name}")
    for name, each in study.evaluations.items()
  }
  for name, each in study.evaluations.items():
    _check_scalars(name, each.scalars, measured[name])
  sizes: dict[str, tuple[int, int]] = {}
  found = []
  for name, run in study.runs.items():
    _check_tasks(name, {e: measured[e] for e in run.evaluations})
    where = f"runs.{name}"
    config = resolve(TrainConfig, run.config, run.overrides, where)
    with _told(where):
      steps = _total_steps(config, sizes)
    for seed in run.seeds:
      start = (run.start, seed) if run.start else None
      seeded = dataclasses.replace(config, seed=seed)
      if start:
        source = dataclasses.replace(config.start, workdir=str(folder_of(runs, *start).resolve()))
        seeded = dataclasses.replace(seeded, start=source)
      evaluations = {e: dataclasses.replace(measured[e], seed=seed) for e in run.evaluations}
      found.append(Job(name, seed, folder_of(runs, name, seed), seeded, evaluations, start, steps))
  _check_baselines(study, measured)
  return found


def folder_of(runs: pathlib.Path, run: str, seed: int) -> pathlib.Path:
  """The workdir of a job."""
  return runs / run / f"seed{seed}"


def resolve(kind: type, config: Recipe, overrides: Mapping[str, Any], where: str) -> Any:
  """Loads a recipe and replaces the options that `overrides` names.

  Args:
    kind: TrainConfig or EvaluateConfig.
    overrides: by dotted path; a mapping replaces a whole section, which is completed with its defaults.
    where: the path in the study, for error messages.
  Returns: the checked config.
  Raises: ValueError for an unknown recipe or path, with the nearest known ones, or a wrong value.
  """
  loaded = load_recipe(config, flag=f"{where}.config") if isinstance(config, str) else config
  if not isinstance(loaded, ml_collections.ConfigDict):
    raise ValueError(
      f"{where}.config is a {type(loaded).__name__}; use a recipe: FILE.py, or ssl_jax.recipe(...)"
    )
  if ("tasks" in loaded) != (kind is EvaluateConfig):
    found, wanted = ("a training", "an evaluation")[:: 1 if kind is EvaluateConfig else -1]
    raise ValueError(f"{where}.config is the recipe of {found}; use the recipe of {wanted}")
  options = copy.deepcopy(loaded.to_dict())
  for path, value in overrides.items():
    _override(options, path, value, where)
  with _told(where):
    return check(kind, recipe(kind, **options))


def _override(options: dict, path: str, value, where: str) -> None:
  *above, last = path.split(".")
  section: Any = options
  for name in above:
    section = section.get(name) if isinstance(section, dict) else None
  if not isinstance(section, dict) or last not in section:
    known = {name.partition(".")[2] for name in leaves(options, "config")}
    raise ValueError(f"{where}.overrides has {path!r}, which its recipe does not have{nearest(path, known)}")
  if isinstance(section[last], dict) and not isinstance(value, Mapping):
    raise ValueError(f"{where}.overrides[{path!r}] is {value!r}, but {path} is a section; use a dict")
  section[last] = copy.deepcopy(value)


class _told:
  """Context manager: puts the place in the study in front of a ValueError."""

  def __init__(self, where: str):
    self._where = where

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind, error, trace) -> None:
    if isinstance(error, ValueError):
      raise ValueError(f"{self._where}: {error}") from error


def _evaluation(config: Recipe, overrides: Mapping[str, Any], where: str) -> EvaluateConfig:
  found = resolve(EvaluateConfig, config, overrides, where)
  with _told(where):
    for name, options in found.tasks.items():
      tasks.make(**{"task": name, **options})
  return found


def _check_scalars(name: str, scalars: tuple[str, ...], config: EvaluateConfig) -> None:
  for scalar in scalars:
    task, point, _ = scalar.partition(".")
    if not point:
      raise ValueError(f"evaluations.{name}.scalars has {scalar!r}; write TASK.SCALAR, such as 'knn.top1'")
    if task not in config.tasks:
      raise ValueError(
        f"evaluations.{name}.scalars has {scalar!r}, but no task of its recipe is called {task!r}"
        f"{nearest(task, config.tasks)}"
      )


def _check_tasks(run: str, evaluations: dict[str, EvaluateConfig]) -> None:
  owner: dict[str, str] = {}
  for name, config in evaluations.items():
    for task in config.tasks:
      if task in owner:
        raise ValueError(
          f"runs.{run}: the evaluations {owner[task]!r} and {name!r} both have a task {task!r}; give one of "
          "them another name in its recipe, with task=KIND among its options"
        )
      owner[task] = name


def _check_baselines(study: Study, measured: Mapping[str, EvaluateConfig]) -> None:
  for pair in study.comparisons:
    for side in pair:
      run, colon, baseline = side.partition(":")
      known = {b for e in study.runs[run].evaluations for b in measured[e].baselines}
      if colon and baseline not in known:
        raise ValueError(
          f"comparisons has {side!r}, but no evaluation of {run!r} has the baseline {baseline!r}"
          f"{nearest(baseline, known)}"
        )


def _total_steps(config: TrainConfig, sizes: dict[str, tuple[int, int]]) -> int:
  """The steps of a run. `sizes` remembers (images, classes) of each data set."""
  uncached = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=False))
  kind = json.dumps([to_json(uncached)["data"], dict(config.host)], sort_keys=True, default=list)
  if kind not in sizes:
    source, _ = open_data(uncached)
    sizes[kind] = len(source), source.num_classes
  return assemble(config, DataSpec(*sizes[kind], config.batch_size)).total_steps


def is_trained(job: Job) -> bool:
  """Whether the training of a job is complete.

  Raises: ValueError if the folder holds a complete training with another config.
  """
  path = marks(job.folder) / "trained.json"
  if not path.exists():
    return False
  changed = _changed(TrainConfig, read_json(path, DAMAGED)["config"], job.config)
  if job.start:  # another machine may see the study under another path
    changed = [line for line in changed if not line.startswith("config.start.workdir:")]
  if changed:
    raise ValueError(
      f"{job.folder} holds a run with a different config:\n  "
      + "\n  ".join(changed)
      + "\nUse the old values or another --output, or delete that folder to train again."
    )
  return True


def evaluated(job: Job) -> dict[str, dict]:
  """Returns the scalars of the evaluations that are complete: {name: {backbone: {task: scalars}}}.

  A baseline has its name in the config, the network of the run the name "". An evaluation with another
  config does not count: it is made again.
  """
  found = {}
  for name, config in job.evaluations.items():
    path = marks(job.folder) / f"evaluation-{name}.json"
    if path.exists():
      stored = read_json(path, DAMAGED)
      if not _changed(EvaluateConfig, stored["config"], config):
        found[name] = stored["scalars"]
  return found


def is_done(job: Job) -> bool:
  """Whether a job is trained and completely evaluated."""
  return is_trained(job) and len(evaluated(job)) == len(job.evaluations)


def marks(folder: pathlib.Path) -> pathlib.Path:
  """The folder in a workdir for what belongs to the study: the results, the log and the lock of the job."""
  return folder / "study"


def write_json(path: pathlib.Path, content: dict, *, sort_keys: bool = False) -> None:
  """Replaces a JSON file atomically, also where several processes write it."""
  write_text(path, json.dumps(content, indent=1, sort_keys=sort_keys) + "\n")


def write_text(path: pathlib.Path, content: str) -> None:
  """Replaces a file atomically, also where several processes write it."""
  new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  new.write_text(content)
  os.replace(new, path)


def _changed(kind: type, stored: dict, config: TrainConfig | EvaluateConfig) -> list[str]:
  """How a stored config differs from `config`; options that came later count with their defaults."""
  with contextlib.suppress(ValueError):  # an option that no longer exists is named as a difference
    stored = to_json(check(kind, recipe(kind, **stored)))
  return [line for line in differences(stored, to_json(config)) if not line.startswith(HARMLESS)]
