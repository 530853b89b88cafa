"""What a study found: values by seed, means with standard errors, paired differences with intervals."""

from __future__ import annotations

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.table
from scipy.special import stdtrit

from ssl_jax.config.checked import nearest
from ssl_jax.config.schema import differences, to_json
from ssl_jax.run.identity import HARMLESS
from ssl_jax.studies.definition import Study
from ssl_jax.studies.jobs import Job, evaluated, is_trained, write_json, write_text
from ssl_jax.view.study import plot_study

FILE = "study.json"
WIDTH = 160  # of tables in files and pipes, columns
Values = dict[tuple[str, str], dict[int, float]]  # by (run or run:baseline, scalar), by seed


def collect(study: Study, jobs: Sequence[Job]) -> dict[str, Any]:
  """Reads the results of the jobs: the content of study.json, which depends on nothing else.

  Returns: {"rows": a list of {run, scalar, seeds, values, mean, standard_error}, "comparisons": a list of
    {run, other, scalar, seeds, differences, mean, standard_error, interval}, "runs": {run: {seeds, steps,
    changed}}, "missing": names of jobs that are not done, "picture": that of the study}. Rows are in the
    order of the study. A standard error and an interval are None for one seed. `changed` lists how the
    config differs from the first run's.
  Raises: ValueError for a scalar that an evaluation does not have, with the nearest ones.
  """
  values: Values = {}
  missing = []
  for job in jobs:
    found = evaluated(job) if is_trained(job) else {}
    missing += [job.name] if len(found) < len(job.evaluations) else []
    for name in job.evaluations:
      if name in found:
        _add(values, job, name, found[name], study.evaluations[name].scalars)
  rows = [_row(run, scalar, by_seed) for (run, scalar), by_seed in values.items()]
  order = [job.run for job in jobs]
  rows.sort(key=lambda row: order.index(row["run"].partition(":")[0]))  # stable
  return {
    "rows": rows,
    "comparisons": [found for pair in study.comparisons for found in _comparisons(values, *pair)],
    "runs": _runs(jobs),
    "missing": missing,
    "picture": study.picture,
  }


def _add(values: Values, job: Job, evaluation: str, table: Mapping, scalars: Sequence[str]) -> None:
  for backbone, measured in sorted(table.items(), key=lambda item: bool(item[0])):  # the network first
    name = f"{job.run}:{backbone}" if backbone else job.run
    chosen = scalars or [f"{task}.{next(iter(found))}" for task, found in measured.items() if found]
    for scalar in chosen:
      task, _, key = scalar.partition(".")
      if key not in measured[task]:
        if backbone:
          continue
        raise ValueError(
          f"evaluations.{evaluation}.scalars has {scalar!r}, which the task does not give"
          f"{nearest(scalar, [f'{task}.{known}' for known in measured[task]])}"
        )
      values.setdefault((name, scalar), {})[job.seed] = float(measured[task][key])


def _row(run: str, scalar: str, by_seed: Mapping[int, float]) -> dict[str, Any]:
  values = [by_seed[seed] for seed in sorted(by_seed)]
  mean, error = mean_and_error(values)
  return {
    "run": run,
    "scalar": scalar,
    "seeds": sorted(by_seed),
    "values": values,
    "mean": mean,
    "standard_error": error,
  }


def _comparisons(values: Values, run: str, other: str) -> list[dict[str, Any]]:
  """run - other in each scalar that both have, of the seeds that both have."""
  found = []
  for scalar in [scalar for name, scalar in values if name == run]:
    first, second = values[run, scalar], values.get((other, scalar), {})
    seeds = sorted(first.keys() & second.keys())
    if seeds:
      paired = [first[seed] - second[seed] for seed in seeds]
      mean, error = mean_and_error(paired)
      reach = None if error is None else float(stdtrit(len(paired) - 1, 0.975)) * error  # Student's t
      found.append(
        {
          "run": run,
          "other": other,
          "scalar": scalar,
          "seeds": seeds,
          "differences": paired,
          "mean": mean,
          "standard_error": error,
          "interval": None if reach is None else [mean - reach, mean + reach],
        }
      )
  return found


def _runs(jobs: Sequence[Job]) -> dict[str, Any]:
  first, found = to_json(jobs[0].config), {}
  for job in jobs:
    changed = [
      line
      for line in differences(first, to_json(job.config))
      if not line.startswith((*HARMLESS, "config.seed:", "config.start.workdir:"))
    ]
    run = found.setdefault(job.run, {"seeds": [], "steps": job.total_steps, "changed": changed})
    run["seeds"].append(job.seed)
  return found


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
  """The mean and its standard error, which is None for one value."""
  error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
  return statistics.fmean(values), error


def write(found: dict[str, Any], output: pathlib.Path) -> None:
  """Writes study.json and, if there is a row, study.png and the tables study.md."""
  write_json(output / FILE, found, sort_keys=True)
  if found["rows"]:
    plot_study(found, output / "study.png")
    written = ["\n".join(f"| {' | '.join(cells)} |" for cells in _ruled(table)) for table in tables(found)]
    write_text(output / "study.md", "\n\n".join(written) + "\n")


Table = list[list[str]]  # the rows of a table, the header first


def tables(found: dict[str, Any]) -> list[Table]:
  """The mean of each run with its standard error, and the differences, if any, with their 95% interval."""
  scalars = list(dict.fromkeys(row["scalar"] for row in found["rows"]))
  means = [["mean ± standard error", *scalars]]
  for run in dict.fromkeys(row["run"] for row in found["rows"]):
    cells = {row["scalar"]: row_text(row) for row in found["rows"] if row["run"] == run}
    means.append([run, *(cells.get(scalar, "") for scalar in scalars)])
  differences = [["difference by seed", "scalar", "mean ± standard error", "95% interval", "seeds"]]
  for each in found["comparisons"]:
    pair = f"{each['run']} - {each['other']}"
    differences.append([pair, each["scalar"], row_text(each), interval_text(each), str(len(each["seeds"]))])
  return [means, differences] if found["comparisons"] else [means]


def _ruled(table: Table) -> Table:
  return [table[0], ["---"] * len(table[0]), *table[1:]]


def print_tables(found: dict[str, Any]) -> None:
  """Prints `tables`."""
  console = wide_console()
  for header, *rows in tables(found):
    table = rich.table.Table(*header)
    for cells in rows:
      table.add_row(*cells)
    console.print(table)


def wide_console() -> rich.console.Console:
  """A console that gives tables room where the output is a file or a pipe."""
  console = rich.console.Console(soft_wrap=True)
  return console if console.is_terminal else rich.console.Console(soft_wrap=True, width=WIDTH)


def row_text(row: Mapping[str, Any]) -> str:
  """Mean and standard error as text: in %, losses as they are."""
  texts = [
    scaled(row["scalar"], value) for value in (row["mean"], row["standard_error"]) if value is not None
  ]
  return " ± ".join(texts)


def interval_text(row: Mapping[str, Any]) -> str:
  """The interval of a comparison as text; "" if there is none."""
  return "" if row["interval"] is None else " to ".join(scaled(row["scalar"], v) for v in row["interval"])


def scaled(scalar: str, value: float) -> str:
  """A value as text: in %, losses as they are."""
  return f"{value:.4f}" if "loss" in scalar else f"{100 * value:.2f}"
