"""How long the jobs of a study take, by the metrics that their trainings write."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence

from ssl_jax.config.schema import StartConfig, to_json
from ssl_jax.log.run_log import METRICS, lines, read_json
from ssl_jax.studies.jobs import DAMAGED, Job, marks
from ssl_jax.studies.processes import start_process
from ssl_jax.studies.worker import seconds_per_step


def family_of(job: Job) -> str:
  """What jobs of equal speed share: the config without its seed."""
  config = dataclasses.replace(job.config, seed=0)
  if job.start:
    config = dataclasses.replace(config, start=StartConfig())
  return json.dumps(to_json(config), sort_keys=True)


def steps_done(job: Job) -> int:
  """The steps that the training of a job has logged, 0 if there are none."""
  rows = lines(job.folder / METRICS)
  return min(int(rows[-1]["step"]), job.total_steps) if rows else 0


def trained_speeds(jobs: Sequence[Job]) -> dict[str, float]:
  """Seconds a step by family, of the families of which some run has logged metrics."""
  rows: dict[str, list] = {}
  for job in jobs:
    rows.setdefault(family_of(job), []).extend(lines(job.folder / METRICS))
  batch_sizes = {family_of(job): job.config.batch_size for job in jobs}
  return {family: seconds_per_step(found, batch_sizes[family]) for family, found in rows.items() if found}


def measured_speed(job: Job, at_once: int = 1) -> tuple[float, str]:
  """Trains a few steps of a job in processes of their own: (seconds a step, ""), or (0, why that failed).

  Args:
    at_once: how many processes, because runs that share the cores are slower than one alone.
  """
  per_epoch = max(round(job.total_steps / job.config.epochs), 1)
  config = dataclasses.replace(job.config, start=StartConfig()) if job.start else job.config
  request = {"measure": to_json(config), "steps_per_epoch": per_epoch}
  with contextlib.ExitStack() as stack:
    started = []
    for _ in range(at_once):
      output, log = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
      process = stack.enter_context(start_process(request, output, log, shared=at_once > 1))
      stack.callback(process.kill)  # before it is waited for, if another one fails or the user interrupts
      started.append((process, output, log))
    found = []
    for process, output, log in started:
      status = process.wait()
      for file in (output, log):
        file.seek(0)
      if status:
        return 0.0, (log.read().strip().splitlines() or [f"exit status {status}"])[-1]
      found.append(float(json.loads(output.read().strip().splitlines()[-1])))
    return statistics.mean(found), ""


def time_left(jobs: Sequence[Job], done: Mapping[tuple[str, int], int], active: int) -> float | None:
  """Estimates the seconds until all jobs are done; None before any step was measured.

  A family without a measured step is assumed to need as long for an image as the mean of the others, and an
  evaluation that never ran as long as the mean of the others.

  Args:
    done: steps by job.
    active: the number of jobs that run at the same time.
  """
  speeds = trained_speeds(jobs)
  if not speeds:
    return None
  sizes = {family_of(job): job.config.batch_size for job in jobs}
  per_image = statistics.mean(seconds / sizes[family] for family, seconds in speeds.items())
  total = 0.0
  for job in jobs:
    speed = speeds.get(family_of(job), per_image * job.config.batch_size)
    total += speed * (job.total_steps - done[job.key])
  return (total + _evaluations_left(jobs)) / max(active, 1)


def _evaluations_left(jobs: Sequence[Job]) -> float:
  seconds: dict[str, list[float]] = {}
  missing = []
  for job in jobs:
    for name in job.evaluations:
      path = marks(job.folder) / f"evaluation-{name}.json"
      if path.exists():
        seconds.setdefault(name, []).append(read_json(path, DAMAGED)["seconds"])
      else:
        missing.append(name)
  if not seconds:
    return 0.0
  means = {name: statistics.mean(each) for name, each in seconds.items()}
  usual = statistics.mean(means.values())
  return sum(means.get(name, usual) for name in missing)
