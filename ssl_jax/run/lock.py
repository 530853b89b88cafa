"""A lock on the folder of a run, so that two trainings do not write into it.

The lock is a file that names its holder, who renews the time of the file as a heartbeat. Nothing else is
needed from the file system, so that it works on network file systems and mounted buckets, between machines
and between containers. The lock of a dead process is taken over: at once if this machine can tell that the
process is dead, otherwise after the file was watched for some time without a heartbeat.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

FILE = "training.lock"
BEAT = 10.0  # seconds between two heartbeats
PATIENCE = 75.0  # seconds without a heartbeat after which a lock is taken over; NFS may hide news for 60


class LockLost(RuntimeError):
  """Another training took the lock over, so that this one must write nothing more."""


class Seen(NamedTuple):
  """A lock file at one moment."""

  content: str
  time: int  # of the last heartbeat, in the clock of the file system

  def holder(self) -> dict:
    """The fields that `_me` wrote; {} while the file is being written."""
    try:
      return dict(json.loads(self.content))
    except (ValueError, TypeError):
      return {}

  def name(self) -> str:
    holder = self.holder()
    return f"process {holder.get('pid', '(unknown)')} on {holder.get('host', 'an unknown host')}"


class Lock:
  """Context manager: holds the lock of a run. In a job of several processes process 0 takes it for all."""

  def __init__(self, workdir: str | pathlib.Path, *, beat: float = BEAT, patience: float = PATIENCE):
    self._workdir, self._path = workdir, pathlib.Path(workdir) / FILE
    self._beat, self._patience = beat, patience
    self._content = json.dumps({**_me(), "token": uuid.uuid4().hex})
    self._released = threading.Event()

  def __enter__(self) -> Lock:
    """Takes the lock. Raises ValueError, in all processes, if another training holds it."""
    problem = None
    if jax.process_index() == 0:
      try:
        self._take()
      except (ValueError, OSError) as error:
        problem = error
    shared = jax.process_count() > 1
    if shared and multihost_utils.broadcast_one_to_all(np.int32(bool(problem))) and not problem:
      raise ValueError(f"process 0 could not lock {self._workdir}")
    if problem:
      raise problem
    if jax.process_index() == 0:
      threading.Thread(target=self._renew, name="lock of the run", daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self._released.set()
    seen = read(self._path) if jax.process_index() == 0 else None
    if seen and seen.content == self._content:
      self._path.unlink(missing_ok=True)

  def check(self) -> None:
    """Raises LockLost if another training has taken the lock over; called before a state is saved."""
    seen = read(self._path) if jax.process_index() == 0 else None
    if seen and seen.holder() and seen.content != self._content:
      raise LockLost(
        f"{seen.name()} has taken over {self._workdir}, because this training gave no sign of life; this one "
        "stops without saving. Stop the other one before you resume here"
      )

  def _take(self) -> None:
    while not self._create():
      seen = read(self._path)
      if seen is None:
        continue  # released meanwhile
      alive = is_alive(seen.holder())
      if alive is None:
        now = self._watch(seen)
        if now is None or now.content != seen.content:
          continue  # another holder
        alive = now.time != seen.time
      if alive:
        raise ValueError(
          f"{seen.name()} trains in {self._workdir} (its lock is {self._path}). Wait for its end or stop "
          "it, or use another --workdir"
        )
      self._remove(seen)

  def _create(self) -> bool:
    """Creates the lock file; returns False if it exists."""
    try:
      descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
      return False
    try:
      with os.fdopen(descriptor, "w") as file:
        file.write(self._content)
    except OSError:  # such as a full disk
      self._path.unlink(missing_ok=True)
      raise
    return True

  def _watch(self, seen: Seen) -> Seen | None:
    """Waits until a lock changes, for at most `patience` seconds; returns what it is then."""
    print(
      f"{self._workdir} is locked by {seen.name()}; waiting up to {self._patience:.0f} s for its heartbeat",
      flush=True,
    )
    end, now = time.monotonic() + self._patience, seen
    while now == seen and time.monotonic() < end:
      time.sleep(min(1.0, self._patience / 20))
      now = read(self._path)
    return now

  def _remove(self, dead: Seen) -> None:
    """Removes the lock of a dead process, and no lock that another process has taken meanwhile."""
    with _one_at_a_time(self._path.parent):
      seen = read(self._path)
      if seen and seen.content == dead.content:
        self._path.unlink(missing_ok=True)
        print(f"took over the lock of {dead.name()}, which no longer runs", flush=True)

  def _renew(self) -> None:
    """Gives a heartbeat until the lock is released; creates the file again if somebody has deleted it."""
    while not self._released.wait(self._beat):
      with contextlib.suppress(OSError):  # such as a network file system that is away for a moment
        seen = read(self._path)
        if seen is None:
          self._create()
        elif seen.content == self._content:
          os.utime(self._path)


@contextlib.contextmanager
def _one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
  """Holds the system's own lock on a folder, which dies with its process.

  Where a file system has no such lock, two processes could pass together; the later one then holds the lock
  of the run, and `Lock.check` stops the other.
  """
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def read(path: pathlib.Path) -> Seen | None:
  """Reads a lock file, opened anew because NFS then asks its server; None if there is none."""
  try:
    with path.open() as file:
      return Seen(file.read(), os.fstat(file.fileno()).st_mtime_ns)
  except FileNotFoundError:
    return None


def _me() -> dict:
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "machine": _machine(),
    "began": _began(os.getpid()),
  }


def _machine() -> str:
  """Names the set of processes that this one can see: the host, its boot and its process namespace."""
  found = [socket.gethostname()]
  with contextlib.suppress(OSError):
    found.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    found.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(found)


def is_alive(holder: dict) -> bool | None:
  """Whether the process that holds a lock runs; None if this machine cannot tell."""
  if holder.get("machine") != _machine():
    return None
  return _began(holder["pid"]) == holder["began"] != ""


def _began(pid: int) -> str:
  """When a process of this machine began, in an arbitrary unit, to recognise a number that is used again.

  Returns: "" if no such process runs; "running" where the system does not tell when it began.
  """
  try:
    state, *fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]  # Z: dead, but its parent has not noticed
  except OSError:
    if pathlib.Path("/proc/self/stat").exists():
      return ""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return ""
  except PermissionError:
    pass
  return "running"
