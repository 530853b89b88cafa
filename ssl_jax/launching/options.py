"""The command line of launch/tpu_pod.sh."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

USAGE = "launch/tpu_pod.sh --name=NAME --zone=ZONE --type=TYPE [options] -- COMMAND..."
ABOUT = """\
Runs one ssl-jax command on every worker of a Cloud TPU slice, or of several. Example:

  launch/tpu_pod.sh --name=moco --zone=us-west4-a --type=v5litepod-64 --spot -- \\
    train --config=configs/pretrain/moco.py:e \\
    --config.data.data_dir=gs://BUCKET/tfds --workdir=gs://BUCKET/runs/moco

First the command is checked on this machine. Unless a slice of this name exists, it is requested from the
queue of its zone, and the script waits until there is capacity. It copies the checkout with its uncommitted
changes, installs it, starts the command on every worker, and prints the log of worker 0. If the slice is
preempted, it is requested again, and the command resumes from its last checkpoint. Buckets in the command
(gs://BUCKET/PATH) are mounted with gcsfuse and passed to the command as folders. The slice is deleted when
the command has finished.
"""
AFTER = "Exit status: that of the command; 1 if the launcher gave up, 2 if it refuses, 130 after Ctrl-C."
NAMED = (
  "network",
  "subnetwork",
  "service_account",
  "labels",
)  # options of `gcloud ... create` that are ours, too
VERSIONS = {
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}  # of the software of the TPU VM, by the family of the accelerator
CORES = {"v2": 1, "v3": 1, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}  # of a device; types count cores


VALUES = {  # {name: (placeholder, default, help)}; a list: the option may be given several times
  "name": ("NAME", "", "name of the slice"),
  "zone": ("ZONE", "", "zone of the slice, such as us-west4-a"),
  "type": ("TYPE", "", "accelerator type, such as v5litepod-64"),
  "slices": ("N", 1, "number of slices of that type that run the command together (default: 1)"),
  "project": ("ID", "", "Google Cloud project (default: that of the gcloud configuration)"),
  "version": ("IMAGE", "", "software of the TPU VM (default: the one for the type)"),
  "network": ("NETWORK", "", "VPC network of the slice"),
  "subnetwork": ("SUBNETWORK", "", "subnetwork of the slice"),
  "service-account": ("EMAIL", "", "account as which the workers read and write buckets"),
  "labels": ("KEY=VALUE,...", "", "labels of the slice"),
  "create-option": (
    "OPTION",
    [],
    "any other option of gcloud's command that creates, such as --create-option=--tags=tpu; repeatable",
  ),
  "ssh-option": (
    "OPTION",
    [],
    "an option of gcloud's ssh and scp, such as --ssh-option=--tunnel-through-iap; repeatable",
  ),
  "patience": ("HOURS", 24.0, "hours to wait for capacity, each time (default: 24)"),
  "restarts": ("N", 100, "give up after so many preemptions and failures (default: 100)"),
}
SWITCHES = {  # {name: help}
  "spot": "use spot capacity, which is cheaper and can be preempted",
  "reserved": "use reserved capacity",
  "direct": "create the slice at once instead of queueing the request for it",
  "keep": "do not delete the slice at the end; another call reuses it",
  "follow": "only print the log of the running command, which keeps running if this ends",
  "logs": "only print the last 100 lines of the log of each worker",
  "delete": "only delete the slice, or the request for it",
  "dry-run": "check the command, print every gcloud command and run none",
}


class Options(NamedTuple):
  """A checked command line."""

  name: str
  zone: str
  type: str
  slices: int
  project: str
  version: str
  spot: bool
  reserved: bool
  direct: bool
  keep: bool
  restarts: int
  patience: float  # hours
  create: tuple[str, ...]  # further options of gcloud's command that creates
  ssh: tuple[str, ...]  # further options of gcloud's commands that connect
  only: str  # "follow", "logs", "delete" or "": run a command
  dry_run: bool
  command: tuple[str, ...]

  @property
  def devices(self) -> int:
    """The number of JAX devices of all slices; 0 if the type is not known here."""
    family, _, size = self.type.rpartition("-")
    return self.slices * int(size) // CORES[family] if family in CORES and size.isdecimal() else 0


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    self.exit(2, f"launch/tpu_pod.sh: {message}; see --help\n")


def parse(words: Sequence[str]) -> Options:
  """Parses and checks a command line; what follows "--" is the command.

  Prints the culprit and the cure, and exits with status 2, if it is wrong.
  """
  place = list(words).index("--") if "--" in words else len(words)
  parser = _parser()
  found = vars(parser.parse_args(words[:place]))
  command = tuple(words[place + 1 :])
  only = next((name for name in ("follow", "logs", "delete") if found.pop(name)), "")
  named = [f"--{name.replace('_', '-')}={found[name]}" for name in NAMED if found[name]]
  create = (*named, *found["create_option"])
  options = Options(
    **{name: value for name, value in found.items() if name in Options._fields},
    create=create,
    ssh=tuple(found["ssh_option"]),
    only=only,
    command=command,
  )
  if problem := _problem(options):
    parser.error(problem)
  family = options.type.rpartition("-")[0]
  return options._replace(version=options.version or VERSIONS.get(family, "tpu-ubuntu2204-base"))


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    usage=USAGE,
    description=ABOUT,
    epilog=AFTER,
    allow_abbrev=False,
    formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=110, max_help_position=26),
  )
  for name, help in SWITCHES.items():
    parser.add_argument(f"--{name}", help=help, action="store_true")
  for name, (metavar, default, help) in VALUES.items():
    kind: dict[str, Any] = {"action": "append"} if isinstance(default, list) else {"type": type(default)}
    parser.add_argument(f"--{name}", help=help, metavar=metavar, default=default, **kind)
  return parser


def _problem(options: Options) -> str:
  """What is wrong with the options together; "" if nothing is."""
  if not options.name:
    return "--name is missing: the name of the slice"
  if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", options.name):
    return (
      f"--name={options.name} is no name of a slice; use small letters, digits and dashes, such as moco-1"
    )
  if not options.zone:
    return "--zone is missing: the zone of the slice, such as us-west4-a"
  if options.only and options.command:
    return f"--{options.only} takes no command; leave out what follows --"
  if not options.only and not options.type:
    return "--type is missing: the accelerator type, such as v5litepod-64"
  if not options.only and not options.command:
    return "the command after -- is missing, for example: train --config=... --workdir=gs://..."
  for name in ("slices", "restarts", "patience"):
    value, least = getattr(options, name), int(name == "slices")
    if value < least:
      return f"--{name}={value} is too small; use a number of at least {least}"
  if options.spot and options.reserved:
    return "--spot and --reserved exclude each other; leave out one of them"
  if options.direct and options.slices > 1:
    return f"--slices={options.slices} needs the queue, which creates the slices together; leave out --direct"
  wrong = [option for option in (*options.create, *options.ssh) if not option.startswith("--")]
  return (
    f"{wrong[0]!r} is no option of gcloud; give it with its dashes, --create-option=--tags=tpu"
    if wrong
    else ""
  )
