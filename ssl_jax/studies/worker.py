"""The process that trains and evaluates one job of a study. The runner starts it and gives it a request."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

from ssl_jax.config.schema import EvaluateConfig, StartConfig, TrainConfig, check, to_json
from ssl_jax.log.run_log import METRICS, lines
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.lock import Lock, LockLost
from ssl_jax.run.stop import Stopped
from ssl_jax.run.train import train
from ssl_jax.studies.jobs import Job, evaluated, is_trained, marks, write_json

BUSY, STOPPED = 76, 75  # exit statuses: another process has the job; stopped, with the work saved
MEASURED_STEPS = 8  # of a training for an estimate; the first half warms up


def request_of(job: Job) -> dict[str, Any]:
  """The job as JSON."""
  return {
    **job._asdict(),
    "folder": str(job.folder),
    "config": to_json(job.config),
    "evaluations": {name: to_json(config) for name, config in job.evaluations.items()},
  }


def main() -> None:
  """Reads a request, one line of JSON, from the standard input, and serves it.

  The runner keeps the standard input open; its end means that the runner has died, and stops this process.
  """
  request = json.loads(sys.stdin.readline())
  # Outside of a training, which saves first, SIGTERM ends the process; locks are released on the way.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
  threading.Thread(target=_stop_with_runner, name="end of the runner", daemon=True).start()
  if "measure" in request:
    print(json.dumps(measure(check(TrainConfig, request["measure"]), request["steps_per_epoch"])))
    return
  configs = {name: check(EvaluateConfig, config) for name, config in request["evaluations"].items()}
  start = request["start"] and tuple(request["start"])
  request |= {"config": check(TrainConfig, request["config"]), "evaluations": configs, "start": start}
  try:
    run(Job(**{**request, "folder": pathlib.Path(request["folder"])}))
  except LockLost as error:
    print(error, flush=True)
    sys.exit(BUSY)
  except Stopped as error:
    print(error, flush=True)
    sys.exit(STOPPED)


def run(job: Job) -> None:
  """Trains and evaluates what is missing of a job. Exits with BUSY if another process works on it."""
  folder = marks(job.folder)
  folder.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    try:
      lock = stack.enter_context(Lock(folder))
    except ValueError as error:
      print(error, flush=True)
      sys.exit(BUSY)
    if not is_trained(job):
      began = time.monotonic()
      train(job.config, job.folder)
      lock.check()
      done = {"config": to_json(job.config), "steps": job.total_steps, "seconds": time.monotonic() - began}
      write_json(folder / "trained.json", done)
    for name in [name for name in job.evaluations if name not in evaluated(job)]:
      began, config = time.monotonic(), job.evaluations[name]
      table = evaluate(config, job.folder)
      lock.check()
      scalars = dict(zip((*config.baselines, ""), table.values(), strict=True))
      done = {"config": to_json(config), "scalars": scalars, "seconds": time.monotonic() - began}
      write_json(folder / f"evaluation-{name}.json", done)


def measure(config: TrainConfig, steps_per_epoch: int) -> float:
  """Trains a few steps in a temporary folder, from random weights. Returns seconds a step."""
  # A warm-up, or a milestone, may lie beyond these steps; a step takes as long without them.
  constant = {**config.optimizer, "schedule": "constant", "warmup_epochs": 0.0}
  config = dataclasses.replace(
    config,
    optimizer=constant,
    epochs=MEASURED_STEPS / steps_per_epoch,
    log_every=MEASURED_STEPS // 2,
    start=StartConfig(),
    tensorboard=False,
  )
  with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
    train(config, folder)
    return seconds_per_step(lines(pathlib.Path(folder) / METRICS)[1:], config.batch_size)


def seconds_per_step(rows: list[dict[str, Any]], batch_size: int) -> float:
  """The median time of a step by rows of metrics."""
  return statistics.median(batch_size / row["images_per_second"] for row in rows)


def _stop_with_runner() -> None:
  while os.read(0, 1):  # not sys.stdin, whose lock a daemon thread would keep at the end of the process
    pass
  os.kill(os.getpid(), signal.SIGTERM)
