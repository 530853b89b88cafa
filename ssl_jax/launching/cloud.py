"""The gcloud commands of a slice, or of several that were created together."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

from ssl_jax.launching.options import Options

TPUS = ("gcloud", "compute", "tpus")
READY = ("ACTIVE", "READY")
# States in which a slice, or the request for it, will not come to life (again).
LOST = ("FAILED", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPED", "UNKNOWN")
_ABSENT = re.compile(r"not[ _]?found", re.IGNORECASE)


class CloudError(Exception):
  """A gcloud command failed; its message is gcloud's."""


class Job(NamedTuple):
  """The command that worker 0 runs or ran last."""

  running: bool
  status: int  # exit status; only of a command that ended
  keep: bool  # whether the slice is kept when the command has ended
  command: str  # its words, joined by blanks


@dataclasses.dataclass(frozen=True)
class Cloud:
  """The slices of one name. Every command is printed before it runs; a dry run only prints."""

  name: str
  place: tuple[str, ...]  # --zone and --project
  ssh: tuple[str, ...]
  slices: int
  queued: bool  # whether the slices belong to a queued resource of the same name
  dry_run: bool

  def state(self) -> str:
    """The state of the queued resource or, once that is active, of the first slice that is not ready.

    Returns: a state of Google's API, "" if there is neither a queued resource nor a slice of this name.
    Raises: CloudError if gcloud cannot tell.
    """
    if not self.queued:
      return self._ask("tpu-vm", "describe", self.name, "--format=value(state)")
    state = self._ask("queued-resources", "describe", self.name, "--format=value(state.state)")
    if state not in READY:
      return state
    each = [self._ask("tpu-vm", "describe", node, "--format=value(state)") for node in self.nodes()]
    return next((found or "TERMINATED" for found in each if found != "READY"), "READY")

  def nodes(self) -> list[str]:
    """The names of the slices, as the queue gives them."""
    return [self.name] if self.slices == 1 else [f"{self.name}-{i}" for i in range(self.slices)]

  def problem(self) -> str:
    """Why a request for slices failed, in Google's words; "" if unknown."""
    if not self.queued:
      return ""
    return self._ask(
      "queued-resources", "describe", self.name, "--format=value(state.failedData.error.message)"
    )

  def create(self, options: Options) -> None:
    """Requests the slices from the queue, or creates the slice. Raises: CloudError."""
    tier = (*(["--spot"] if options.spot else []), *(["--reserved"] if options.reserved else []))
    kind = f"--accelerator-type={options.type}"
    if not self.queued:
      self._do("tpu-vm", "create", self.name, kind, f"--version={options.version}", *tier, *options.create)
      return
    nodes = [f"--node-id={self.name}"]
    if self.slices > 1:
      nodes = [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
    more = (f"--runtime-version={options.version}", "--async", *tier, *options.create)
    self._do("queued-resources", "create", self.name, *nodes, kind, *more)

  def delete(self) -> None:
    """Deletes the slices and the request for them. Raises: CloudError."""
    if self.queued:
      self._do("queued-resources", "delete", self.name, "--force", "--quiet")
    else:
      self._do("tpu-vm", "delete", self.name, "--quiet")

  def copy(self, file: str, target: str) -> None:
    """Copies a file to the home folder of every worker. Raises: CloudError."""
    self._connect("scp", file, f"{self.name}:{target}", worker="all")

  def on_all(self, line: str) -> None:
    """Runs a line of shell on every worker. Raises: CloudError if it fails on one of them."""
    self._connect("ssh", self.name, f"--command={line}", worker="all")

  def on_first(self, line: str) -> None:
    """Runs a line of shell on worker 0 of the first slice, and prints what it prints. Raises: CloudError."""
    self._connect("ssh", self.name, f"--command={line}", worker="0")

  def job(self) -> Job | None:
    """The command of worker 0; None if it had none. Raises: CloudError if the worker does not answer."""
    if self.dry_run:
      return None
    script = "ssl_jax/launch/worker.sh"
    words = self._words("ssh", self.name, f"--command=test ! -f {script} || bash {script} state", worker="0")
    told = dict(line.split("=", 1) for line in _captured(words).splitlines() if "=" in line)
    if "command" not in told:
      return None
    return Job(told["state"] == "running", int(told["status"]), told["keep"] == "1", told["command"])

  def _words(self, verb: str, *words: str, worker: str) -> list[str]:
    # gcloud's commands for queued resources reach several slices, and batch the connections.
    where = (
      ["queued-resources", verb, *words, f"--node={worker}"] if self.queued else ["tpu-vm", verb, *words]
    )
    return [*TPUS, *where, f"--worker={worker}", *self.ssh, *self.place]

  def _connect(self, verb: str, *words: str, worker: str) -> None:
    self._run(self._words(verb, *words, worker=worker))

  def _do(self, *words: str) -> None:
    self._run([*TPUS, *words, *self.place], keep_errors=True)

  def _ask(self, *words: str) -> str:
    """What a `describe` prints; "" if the thing does not exist."""
    try:
      return _captured([*TPUS, *words, *self.place]).strip()
    except CloudError as error:
      if _ABSENT.search(str(error)):
        return ""
      raise

  def _run(self, words: list[str], keep_errors: bool = False) -> None:
    print(f"+ {shlex.join(words)}", file=sys.stderr, flush=True)
    if self.dry_run:
      return
    found = subprocess.run(words, stderr=subprocess.PIPE if keep_errors else None, text=True)
    print(found.stderr or "", end="", file=sys.stderr, flush=True)
    if found.returncode:
      raise CloudError(found.stderr or f"{' '.join(words[:5])} ended with status {found.returncode}")


def _captured(words: list[str]) -> str:
  found = subprocess.run(words, capture_output=True, text=True)
  if found.returncode:
    raise CloudError(found.stderr.strip() or f"{' '.join(words[:5])} ended with status {found.returncode}")
  return found.stdout


def find(options: Options) -> tuple[Cloud, str]:
  """(The slices that the options name, their state): those that exist, whichever way they were created.

  If there are none, the state is "" and the way is that of the options.
  Raises: CloudError if gcloud cannot tell.
  """
  place = (f"--zone={options.zone}", *([f"--project={options.project}"] if options.project else []))
  slices = 0 if options.only else options.slices  # which are not asked one by one then
  queued = Cloud(options.name, place, options.ssh, slices, True, options.dry_run)
  direct = dataclasses.replace(queued, queued=False)
  if options.dry_run:
    return (direct if options.direct else queued), ""
  for cloud in (queued, direct):
    if state := cloud.state():
      return cloud, state
  return (direct if options.direct else queued), ""
