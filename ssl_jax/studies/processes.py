"""The processes that work for a runner, and what tells it which jobs others work on."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import jax

from ssl_jax.run import lock
from ssl_jax.studies.jobs import Job, marks
from ssl_jax.studies.worker import request_of

LOG = "log.txt"
BYTES_OF_A_RUN = 2**31  # of memory, that a small run on CPU is expected to need at most
# The search path of the parent, which may have found the package in ways that a child would not.
PROGRAM = (
  "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ssl_jax.studies.worker import main; main()"
)


def start_process(request: dict[str, Any], stdout, stderr, *, shared: bool = False) -> subprocess.Popen:
  """Starts a worker and sends it a request. The worker stops when its standard input is closed.

  Args:
    stdout, stderr: as those of Popen.
    shared: whether other workers use the same accelerator, so that none may take all of its memory.
  """
  path = json.dumps([os.path.abspath(folder) for folder in sys.path])
  environment = {**os.environ, **({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if shared else {})}
  process = subprocess.Popen(
    [sys.executable, "-P", "-u", "-c", PROGRAM, path],
    stdin=subprocess.PIPE,
    stdout=stdout,
    stderr=stderr,
    text=True,
    env=environment,
    start_new_session=True,  # Ctrl-C reaches the runner alone, which passes it on once
  )
  assert process.stdin is not None
  with contextlib.suppress(BrokenPipeError):  # its exit status will tell
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
  return process


class Workers:
  """Context manager: at most `limit` processes, one for each job. At the end all of them are stopped."""

  def __init__(self, limit: int):
    self._limit = limit
    self._processes: dict[tuple[str, int], subprocess.Popen] = {}

  def __enter__(self) -> Workers:
    return self

  def __exit__(self, *_) -> None:
    self.stop()

  def __len__(self) -> int:
    return len(self._processes)

  def __contains__(self, job: Job) -> bool:
    return job.key in self._processes

  @property
  def are_all_busy(self) -> bool:
    return len(self) >= self._limit

  def start(self, job: Job) -> None:
    folder = marks(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a") as log:
      self._processes[job.key] = start_process(request_of(job), log, log, shared=self._limit > 1)

  def ended(self) -> dict[tuple[str, int], int]:
    """Returns, and forgets, the exit status of each job whose process has ended."""
    found = {key: code for key, each in self._processes.items() if (code := each.poll()) is not None}
    for key in found:
      _close(self._processes.pop(key))
    return found

  def stop(self) -> None:
    """Asks all processes to save their work and waits for their end."""
    for process in self._processes.values():
      process.send_signal(signal.SIGTERM)
    for process in self._processes.values():
      process.wait()
      _close(process)
    self._processes.clear()


def _close(process: subprocess.Popen) -> None:
  assert process.stdin is not None
  with contextlib.suppress(BrokenPipeError):
    process.stdin.close()


class Locks:
  """Tells whether processes of other runners hold the locks of jobs, without waiting for a heartbeat."""

  def __init__(self, patience: float = lock.PATIENCE):
    self._patience = patience
    self._seen: dict[pathlib.Path, tuple[lock.Seen, float]] = {}

  def is_held(self, job: Job) -> bool:
    path = marks(job.folder) / lock.FILE
    seen = lock.read(path)
    if seen is None:
      return False
    alive = lock.is_alive(seen.holder())
    if alive is not None:
      return alive
    if path not in self._seen or self._seen[path][0] != seen:
      self._seen[path] = seen, time.monotonic()
    return time.monotonic() - self._seen[path][1] < self._patience


def choose_parallel(jobs: int) -> int:
  """The number of runs at once: one on an accelerator; on CPU one for each core, if the memory allows it.

  A small network does not keep several cores busy: on two cores, two trainings by the recipe of the sample
  take 1,590 images a second, one alone 1,400.
  """
  backend = "cpu"
  if os.environ.get("JAX_PLATFORMS") != "cpu":
    program = "import jax; print(jax.default_backend())"
    found = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    backend = found.stdout.strip()
  if backend != "cpu":
    return 1
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return max(1, min(jobs, cores, _free_bytes() // BYTES_OF_A_RUN))


def _free_bytes() -> int:
  """The memory that programs can still get; the physical memory where the system does not tell."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
      if line.startswith("MemAvailable:"):
        return int(line.split()[1]) * 1024
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def stay_off_accelerators() -> None:
  """Makes this process use the CPU, so that its workers get the accelerators."""
  jax.config.update("jax_platforms", "cpu")
