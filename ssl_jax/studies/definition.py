"""What a study file returns: named runs, how each is evaluated, and which are compared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import ml_collections

from ssl_jax.config.checked import call_checked, nearest

Picture = Literal["points", "lines", "matrix"]
Recipe = str | ml_collections.ConfigDict  # FILE.py or FILE.py:VARIANT, or what `ssl_jax.recipe` makes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
  """A training of the study, once for each seed."""

  config: Recipe  # of the training
  # by the path of an option, such as {"method.mlp": False}; the value of a section replaces all of it
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seeds: tuple[int, ...] = ()  # (): those of the study
  evaluations: tuple[str, ...] = ()  # names of evaluations of the study; (): all of them
  start: str = ""  # the run whose network of the same seed this one starts from: config.start.workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyEvaluation:
  """An evaluation of runs of the study, with the seed of the run."""

  config: Recipe
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scalars: tuple[str, ...] = ()  # what is reported, as "TASK.SCALAR"; (): the first scalar of each task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """A study whose names agree with each other; `define_study` makes it."""

  runs: Mapping[str, StudyRun]
  evaluations: Mapping[str, StudyEvaluation]
  comparisons: tuple[tuple[str, str], ...]
  picture: Picture = "points"


def define_study(
  *,
  runs: Mapping[str, Mapping[str, Any]],
  evaluations: Mapping[str, Mapping[str, Any]],
  comparisons: Sequence[tuple[str, str]] = (),
  seeds: Sequence[int] = (0, 1, 2),
  picture: Picture = "points",
) -> Study:
  """Makes the study that `get_study` of a study file returns.

  Args:
    runs: by name, the fields of a StudyRun. Names are names of folders.
    evaluations: by name, the fields of a StudyEvaluation. Evaluations of one run have distinct tasks.
    comparisons: pairs (run, other), compared in every scalar that both have, seed by seed. A side may be
      "RUN:BASELINE", a baseline of the evaluations of that run, such as "moco:pixels".
    seeds: of the runs that do not name theirs.
    picture: "points": a panel for each scalar with a line for each run; "lines": a curve over the scalars for
      each run; "matrix": a map for each scalar, in which the run "A+B" has row A and column B, and the run
      "A" lies on the diagonal.
  Raises: ValueError for a wrong field, a name that the study does not have, or runs that start from each
    other.
  """
  if not runs or not evaluations:
    raise ValueError(f"the study has no {'evaluations' if runs else 'runs'}; name one or more")
  made = {name: _run(name, fields, runs, evaluations, tuple(seeds)) for name, fields in runs.items()}
  for name in made:
    _check_chain(name, made)
  measured = {
    name: call_checked(StudyEvaluation, fields, f"evaluations.{name}") for name, fields in evaluations.items()
  }
  for name in measured:
    _check_name(name, "evaluations")
  for pair in comparisons:
    if isinstance(pair, str) or len(pair) != 2:
      raise ValueError(f"comparisons has {pair!r}; use a pair of runs, such as ('a', 'b')")
    for side in pair:
      _check_known(side.partition(":")[0], made, f"comparisons has {side!r}, but no run is called so")
    if not {*made[pair[0].partition(":")[0]].seeds} & {*made[pair[1].partition(":")[0]].seeds}:
      raise ValueError(f"comparisons has {pair!r}, which share no seed; give them the same seeds")
  if picture not in get_args(Picture):
    raise ValueError(f"picture is {picture!r}{nearest(picture, get_args(Picture))}")
  pairs = tuple((a, b) for a, b in comparisons)
  return Study(runs=made, evaluations=measured, comparisons=pairs, picture=picture)


def narrowed(study: Study, *, data_dir: str = "", seeds: Sequence[int] = ()) -> Study:
  """Returns the study on the data and the seeds that a user has.

  Args:
    data_dir: the value of config.data.data_dir of the runs whose overrides do not set it; "" changes nothing.
    seeds: those of each run; () changes nothing.
  Raises: ValueError for seeds that are not distinct numbers from 0.
  """
  runs = {}
  for name, run in study.runs.items():
    if data_dir:
      run = dataclasses.replace(run, overrides={"data.data_dir": data_dir, **run.overrides})
    if seeds:
      run = dataclasses.replace(run, seeds=_check_seeds(tuple(seeds), "--seeds"))
    runs[name] = run
  return dataclasses.replace(study, runs=runs)


def _check_seeds(seeds: tuple[int, ...], where: str) -> tuple[int, ...]:
  if len({*seeds}) < len(seeds) or not seeds or min(seeds) < 0:
    raise ValueError(f"{where} is {seeds}; use distinct numbers from 0, such as (0, 1, 2)")
  return seeds


def _run(name: str, fields: Mapping, runs: Mapping, evaluations: Mapping, seeds: tuple[int, ...]) -> StudyRun:
  where = f"runs.{name}"
  _check_name(name, "runs")
  run = call_checked(StudyRun, fields, where)
  run = dataclasses.replace(run, seeds=run.seeds or seeds, evaluations=run.evaluations or tuple(evaluations))
  _check_seeds(run.seeds, f"{where}.seeds")
  for evaluation in run.evaluations:
    _check_known(evaluation, evaluations, f"{where}.evaluations has {evaluation!r}")
  if run.start:
    _check_known(run.start, runs, f"{where}.start is {run.start!r}")
  return run


def _check_chain(name: str, runs: Mapping[str, StudyRun]) -> None:
  """Follows `start` from a run; every seed must exist there, and the chain must end."""
  seen, run = [name], runs[name]
  while run.start:
    if missing := {*run.seeds} - {*runs[run.start].seeds}:
      raise ValueError(
        f"runs.{seen[-1]} has seed {min(missing)}, but runs.{run.start}, which it starts from, does not; "
        "give both the same seeds"
      )
    if run.start in seen:
      raise ValueError(f"runs.{name}.start leads back to {run.start!r}; a run starts from one before it")
    seen.append(run.start)
    run = runs[run.start]


def _check_name(name: str, where: str) -> None:
  if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
    raise ValueError(
      f"{where} has the name {name!r}; use letters, digits and _ . + -, as in names of folders"
    )


def _check_known(name: str, known: Mapping, problem: str) -> None:
  if name not in known:
    raise ValueError(f"{problem}{nearest(name, known)}")
