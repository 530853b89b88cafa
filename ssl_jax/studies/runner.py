"""Runs a study: starts a process for each job that nobody works on, until every job is done."""

from __future__ import annotations

import collections
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import rich.table

from ssl_jax.config.recipe_files import load_recipe
from ssl_jax.log.console import Progress
from ssl_jax.log.run_log import clock
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.studies import results
from ssl_jax.studies.definition import Study, narrowed
from ssl_jax.studies.jobs import Job, evaluated, is_done, is_trained, make_jobs, marks
from ssl_jax.studies.processes import LOG, Locks, Workers, choose_parallel
from ssl_jax.studies.timing import family_of, measured_speed, steps_done, time_left, trained_speeds
from ssl_jax.studies.worker import BUSY, STOPPED

POLL = 0.3  # seconds between two looks at the processes
REPORT = 5.0  # seconds between two updates of the progress line, which reads the metrics of all runs


def study(
  study: Study | str,
  output: str | pathlib.Path,
  *,
  data_dir: str = "",
  seeds: Sequence[int] = (),
  dry_run: bool = False,
  parallel: int = 0,
) -> dict[str, Any]:
  """Trains and evaluates what is missing of a study, and writes what it found to `output`.

  Another call with the same arguments continues where the last one was, with the same results. Several
  processes, on machines that see `output`, share the work: each run is locked by the one that works on it.
  A process of its own trains each run; a script on an accelerator should call this before it uses JAX itself.

  Args:
    study: what `define_study` makes, or the name of a study file, FILE.py or FILE.py:VARIANT.
    output: the folder with the runs (runs/RUN/seedN), study.json and study.png.
    data_dir, seeds: see `definition.narrowed`; a study whose seeds are run one by one is the same study.
    dry_run: print the runs, what is done of each, and an estimate of the time, and return.
    parallel: how many runs at once; 0: chosen by the machine.
  Returns: the content of study.json, see `results.collect`.
  Raises: ValueError for a wrong study, before anything is trained; RuntimeError that names the runs that
    failed, after all others are done; Stopped on SIGTERM, SIGHUP or Ctrl-C, after the runs have saved.
  """
  if parallel < 0:
    raise ValueError(f"--parallel={parallel} is negative; use 0, or the number of runs at once")
  definition = load_study(study) if isinstance(study, str) else study
  definition = narrowed(definition, data_dir=data_dir, seeds=seeds)
  folder = pathlib.Path(output).expanduser()
  jobs = make_jobs(definition, folder)
  done = {job.key for job in jobs if is_done(job)}
  if dry_run:
    _print_plan(jobs, parallel or choose_parallel(len(jobs)))
    return results.collect(definition, jobs)
  folder.mkdir(parents=True, exist_ok=True)
  results.collect(definition, jobs)  # names of scalars are checked as soon as there are results
  failed: dict[tuple[str, int], str] = {}
  if len(done) < len(jobs):
    limit = parallel or choose_parallel(len(jobs) - len(done))
    with Stop() as stop, Workers(limit) as workers, Progress("study, steps") as progress:
      failed = _work(definition, jobs, done, folder, workers, stop, progress)
  found = results.collect(definition, jobs)
  results.write(found, folder)
  results.print_tables(found)
  print(f"results: {folder / results.FILE}, study.md and study.png")
  if failed:
    lines = [f"{run}, seed {seed}: {why}" for (run, seed), why in failed.items()]
    raise RuntimeError(
      f"{len(failed)} of {len(jobs)} runs failed; the same command tries them again:\n  " + "\n  ".join(lines)
    )
  return found


def load_study(name: str) -> Study:
  """Loads a study file. Raises ValueError if it does not return what `define_study` makes."""
  found = load_recipe(name, "get_study", "--study")
  if not isinstance(found, Study):
    raise ValueError(
      f"--study={name}: get_study returns a {type(found).__name__}; return ssl_jax.define_study(...)"
    )
  return found


def _work(
  definition: Study,
  jobs: Sequence[Job],
  done: set[tuple[str, int]],
  folder: pathlib.Path,
  workers: Workers,
  stop: Stop,
  progress: Progress,
) -> dict[tuple[str, int], str]:
  """Starts and watches processes until every job is done, by this runner or another, or has failed.

  Returns: why, by job, for those that failed; a job that starts from a failed one fails too.
  """
  by_key, failed, locks = {job.key: job for job in jobs}, {}, Locks()
  reported = float("-inf")
  while len(done) + len(failed) < len(jobs):
    ended = workers.ended()
    for key, status in ended.items():
      if status not in (BUSY, STOPPED) and (status or not is_done(by_key[key])):
        failed[key] = _reason(by_key[key], status)
    finished = {job.key for job in jobs if job.key not in done and job not in workers and is_done(job)}
    if finished:
      done |= finished
      results.write(results.collect(definition, jobs), folder)
    elsewhere = _start(jobs, done, failed, workers, locks)
    if time.monotonic() - reported > REPORT or finished:
      reported = time.monotonic()
      _report(jobs, len(done), len(failed), len(workers), elsewhere, progress)
    if reason := stop.poll():
      workers.stop()
      raise Stopped(
        f"stopped by {reason}: {len(done)} of {len(jobs)} runs are done, the others are saved; run the same "
        "command again to continue"
      )
    time.sleep(POLL)
  return failed


def _start(jobs: Sequence[Job], done: set, failed: dict, workers: Workers, locks: Locks) -> int:
  """Starts as many jobs as there is room for; returns how many are being worked on by other runners."""
  elsewhere = 0
  by_key = {job.key: job for job in jobs}
  for job in jobs:
    if job.key in done or job.key in failed or job in workers:
      continue
    if job.start and job.start in failed:
      failed[job.key] = f"it starts from {by_key[job.start].name}, which failed"
    elif locks.is_held(job):
      elsewhere += 1
    elif not workers.are_all_busy and (job.start is None or is_trained(by_key[job.start])):
      workers.start(job)
  return elsewhere


def _reason(job: Job, status: int) -> str:
  log = marks(job.folder) / LOG
  if status < 0:
    return f"its process was killed by signal {-status} (see {log})"
  last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
  return f"{last[0] if last else f'exit status {status}'} (see {log})"


def _report(jobs: Sequence[Job], done: int, failed: int, running: int, elsewhere: int, progress: Progress):
  steps = {job.key: steps_done(job) for job in jobs}
  left = time_left(jobs, steps, running + elsewhere)
  words = [f"{done} of {len(jobs)} runs done", f"{running} running"]
  words += [f"{elsewhere} elsewhere"] if elsewhere else []
  words += [f"{failed} failed"] if failed else []
  words.append(f"time left {'unknown' if left is None else clock(left)}")
  progress(sum(steps.values()), sum(job.total_steps for job in jobs), ", ".join(words))


def _print_plan(jobs: Sequence[Job], parallel: int) -> None:
  """Prints the runs with their steps and states, and the time that what is missing needs."""
  speeds = {family: (seconds, "training") for family, seconds in trained_speeds(jobs).items()}
  problems = {}
  for job in jobs:
    if family_of(job) not in speeds and not is_trained(job):
      seconds, problem = measured_speed(job, min(parallel, len(jobs)))
      speeds[family_of(job)] = (seconds, "now" if seconds else "")
      problems |= {job.run: problem} if problem else {}
  table = rich.table.Table("run", "seed", "steps", "done", "evaluated", "s/step", "measured", "left")
  total = 0.0
  for job in jobs:
    steps = job.total_steps if is_trained(job) else steps_done(job)
    seconds, source = speeds.get(family_of(job), (0.0, ""))
    left = seconds * (job.total_steps - steps)
    total += left
    ready = f"{len(evaluated(job)) if is_trained(job) else 0} of {len(job.evaluations)}"
    pace = f"{seconds:.3g}" if seconds else ""
    table.add_row(
      job.run,
      str(job.seed),
      str(job.total_steps),
      str(steps),
      ready,
      pace,
      source,
      clock(left) if pace else "",
    )
  console = results.wide_console()
  console.print(table)
  for run, problem in problems.items():
    console.print(f"{run} could not be measured: {problem}", markup=False)
  runs = collections.Counter(is_done(job) for job in jobs)
  console.print(
    f"{runs[False]} of {len(jobs)} runs to do, {parallel} at once: about {clock(total / parallel)} of "
    "training, without compilation, evaluation and what could not be measured (measured: now, in a few "
    "steps, or in a training)"
  )
