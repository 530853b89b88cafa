"""Runs a command on slices until it has finished: requests them, starts it, replaces slices that are lost.

A command that was asked to stop, or whose slice was preempted, is started again and resumes from its last
checkpoint.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ssl_jax.launching.checkout import find_checkout, pack, unpack
from ssl_jax.launching.cloud import LOST, Cloud, CloudError, find
from ssl_jax.launching.command import Command, check, localized
from ssl_jax.launching.options import Options, parse

STOPPED = 75  # exit status of a command that was asked to stop and has saved its work
PAUSE = float(os.environ.get("SSL_JAX_PAUSE", "30"))  # seconds between questions for the state of a slice
LONG = 3600.0  # seconds; a command that ran longer before it failed has not failed at its start
MOST_FAILURES = 3  # in a row
WORKER = "bash ssl_jax/launch/worker.sh"


class Outcome(NamedTuple):
  """How an attempt to run the command ended."""

  status: int | None  # exit status of the command; None: the slice was lost, or did not answer
  seconds: float  # that the command ran
  keep: bool = False  # whether the slice was started with --keep


def main(words: Sequence[str]) -> int:
  """Runs the launcher with the words of its command line; returns its exit status."""
  options = parse(words)
  try:
    return _only(options) if options.only else _launch(options)
  except (CloudError, ValueError) as error:
    tell(str(error))
    return 2 if isinstance(error, ValueError) else 1
  except KeyboardInterrupt:
    tell(
      "interrupted. A command that was started keeps running, and --follow prints its log; a slice that was "
      "requested stays in the queue, and costs from the moment it is there. --delete deletes either"
    )
    return 130


def tell(text: str) -> None:
  """Prints a message of the launcher to stderr."""
  print(f"launch/tpu_pod.sh: {text}", file=sys.stderr, flush=True)


def _only(options: Options) -> int:
  """Does one thing with slices that exist: follow, logs or delete."""
  cloud, state = find(options)
  if not state and not options.dry_run:
    raise ValueError(f"there is no slice {options.name} in {options.zone}")
  if options.only == "delete":
    cloud.delete()
    return 0
  if options.only == "logs":
    cloud.on_all(f"{WORKER} logs")
    return 0
  return _follow_only(cloud)


def _follow_only(cloud: Cloud) -> int:
  """Prints the log of a command that an earlier call started; deletes the slice unless that call keeps it."""
  if cloud.job() is None and not cloud.dry_run:
    raise ValueError(f"no command was started on {cloud.name}")
  status = _follow(cloud).status
  if status is None:
    tell("the slice does not answer; give the whole command to replace it if it is lost")
    return 1
  job = cloud.job()
  if status == 0 and (job is None or not job.keep):
    cloud.delete()
  else:
    tell(f"the command ended with status {status}; the slice is kept, --delete deletes it")
  return status


def _launch(options: Options) -> int:
  """Checks the command and runs it until it has finished."""
  if not options.dry_run and not shutil.which("gcloud"):
    raise ValueError("the command gcloud is not installed; see https://cloud.google.com/sdk/docs/install")
  checkout, command = find_checkout(), localized(options.command)
  with tempfile.TemporaryDirectory() as folder:
    archive, copy = pathlib.Path(folder, "ssl_jax.tar"), pathlib.Path(folder, "copy")
    pack(checkout, archive)
    unpack(archive, copy)
    if told := check(command, copy, options.devices):
      tell(told)
    tell(f"commit {checkout.commit}" + "".join(f"\n  with {line}" for line in checkout.changes))
    cloud, _ = find(options)
    return _run(cloud, options, command, archive)


def _run(cloud: Cloud, options: Options, command: Command, archive: pathlib.Path) -> int:
  """Makes attempts until the command has finished, has failed too often, or was restarted too often."""
  failures = 0
  for _ in range(options.restarts + 1):
    outcome = _attempt(cloud, options, command, archive)
    if outcome.status == 0:
      if options.keep or outcome.keep:
        tell("the command has finished; the slice is kept, --delete deletes it")
      else:
        cloud.delete()
      return 0
    failures = _failures(cloud, outcome, failures)
    if failures == MOST_FAILURES:
      tell(
        "the command failed three times on a slice that is ready; the last lines of each worker are above. "
        "The slice is kept; --delete removes it"
      )
      return outcome.status or 1
    time.sleep(PAUSE)
  tell(f"gave up after {options.restarts} restarts; the slice is kept, --delete removes it")
  return 1


def _failures(cloud: Cloud, outcome: Outcome, before: int) -> int:
  """The number of failures in a row after an attempt; tells what happened."""
  if outcome.status == STOPPED:
    tell("the command was asked to stop; it is started again")
    return before
  state = _answer(cloud.state)
  if state is None:
    return before
  if state != "READY":
    tell(f"interrupted, the slice is {state or 'gone'}; the command is started again")
    return 0
  tell(f"failed with status {outcome.status}" if outcome.status else "a worker did not answer")
  try:
    cloud.on_all(f"{WORKER} logs 20")
  except CloudError:
    tell("the logs of some workers could not be read")
  return 1 if outcome.seconds > LONG else before + 1


def _attempt(cloud: Cloud, options: Options, command: Command, archive: pathlib.Path) -> Outcome:
  """Waits for the slice, starts the command unless it is running already, and follows its log."""
  fresh = _await(cloud, options)
  try:
    job = None if fresh else cloud.job()
    if job is not None and job.running and job.command != str(command):
      raise ValueError(
        f"the slice {cloud.name} is busy with another command:\n  {job.command}\nwait for its end, use "
        "another --name, or delete the slice with --delete"
      )
    if job is None or not job.running:
      cloud.copy(str(archive), "ssl_jax.tar")
      parts = "ssl_jax/ssl_jax ssl_jax/configs ssl_jax/launch"  # where a file that is gone now would matter
      cloud.on_all(
        f"rm -rf {parts} && mkdir -p ssl_jax && tar -xf ssl_jax.tar -C ssl_jax && "
        f"{shlex.join([*WORKER.split(), 'install', *command.buckets])}"
      )
      cloud.on_all(shlex.join([*WORKER.split(), "start", str(int(options.keep)), *command.words]))
  except CloudError as error:
    tell(str(error))
    return Outcome(None, 0.0)
  return _follow(cloud)


def _follow(cloud: Cloud) -> Outcome:
  """Prints the log of worker 0 until the command has ended, over as many connections as it takes."""
  began, silent = time.monotonic(), 0
  while silent < MOST_FAILURES:
    try:
      cloud.on_first(f"{WORKER} follow")
    except CloudError as error:
      tell(f"the connection is lost: {error}")
    if cloud.dry_run:
      return Outcome(0, 0.0)
    job = _answer(cloud.job)
    if job is not None and not job.running:
      return Outcome(job.status, time.monotonic() - began, job.keep)
    if job is None and _answer(cloud.state) != "READY":
      break
    silent = silent + 1 if job is None else 0
    time.sleep(PAUSE)
  return Outcome(None, time.monotonic() - began)


def _await(cloud: Cloud, options: Options) -> bool:
  """Waits until the slice is ready; requests it if there is none, and replaces it if it is lost.

  Returns: whether it was requested here.
  Raises: CloudError if it is not ready after the hours of --patience; the request is then deleted, so that
    nobody pays for a slice for which nobody waits. CloudError, too, if requests fail.
  """
  deadline, requested, failed, told = time.monotonic() + 3600 * options.patience, False, 0, ""
  while True:
    state = "" if cloud.dry_run else _answer(cloud.state)
    if state == "READY":
      return requested
    if state in LOST:
      reason = (_answer(cloud.problem) or "unknown reason") if state == "FAILED" else ""
      failed += state == "FAILED"
      tell(f"the slice is {state} and will be replaced" + (f": {reason}" if reason else ""))
      _answer(cloud.delete)
      if failed == MOST_FAILURES:
        raise CloudError(f"the request for the slice failed {failed} times: {reason}")
    elif state == "":
      requested = _create(cloud, options) or requested
      if cloud.dry_run:
        return True
    elif state is not None and state != told:
      tell(f"the slice is {state}; waiting")
      told = state
    if time.monotonic() > deadline:
      waiting = bool(state or requested) and state not in LOST
      if waiting:
        _answer(cloud.delete)
      raise CloudError(
        f"no slice within --patience={options.patience:g} hours"
        + ("; the request is deleted" if waiting else "")
      )
    time.sleep(PAUSE)


def _answer(question: Callable[[], Any]) -> Any:
  """The answer of gcloud, None if it cannot tell at the moment."""
  try:
    return question()
  except CloudError as error:
    tell(f"no answer: {error}")
    return None


def _create(cloud: Cloud, options: Options) -> bool:
  """Requests the slice; returns False if there is no capacity for it at the moment."""
  try:
    cloud.create(options)
  except CloudError as error:
    if re.search("already[_ ]exists", str(error), re.IGNORECASE):  # a new request may not be seen at once
      return True
    full = any(word in str(error).lower() for word in ("capacity", "resource_exhausted", "stockout"))
    if cloud.queued or not full:
      raise
    return False
  return True
