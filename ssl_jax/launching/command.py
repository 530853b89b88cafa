"""The command that the workers run: its buckets become folders, and it is checked on this machine."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

MOUNTS = "/tmp/gcs"  # on the workers, see launch/worker.sh
OUTPUTS = ("--workdir", "--output")  # what is written there must outlive the slice
REHEARSED = ("train", "evaluate")  # commands with a dry run that takes seconds
# Names of buckets: https://cloud.google.com/storage/docs/buckets#naming
_NAME = re.compile(r"(?=.{3,63}$)[a-z0-9][a-z0-9._-]*[a-z0-9]")
_URL = re.compile(r"gs://([^/,:;'\"\s]*)")


class Command(NamedTuple):
  """A command as the workers get it."""

  words: tuple[str, ...]  # with folders instead of buckets
  buckets: tuple[str, ...]

  def __str__(self) -> str:
    return " ".join(self.words)


def localized(words: Sequence[str]) -> Command:
  """Replaces gs://BUCKET/PATH in a command by the folder as which the workers mount it.

  Raises: ValueError for a name that no bucket can have, or an output that would be lost with the slice.
  """
  buckets: dict[str, None] = {}

  def folder(match: re.Match) -> str:
    name = match[1]
    if not _NAME.fullmatch(name) or ".." in name or name.startswith("goog"):
      raise ValueError(
        f"{match[0]} names no bucket: {name!r} is not 3 to 63 small letters, digits, dashes, dots and "
        "underscores; put in the name of yours"
      )
    buckets[name] = None
    return f"{MOUNTS}/{name}"

  found = tuple(_URL.sub(folder, word) for word in words)
  for word in found:
    flag, _, value = word.partition("=")
    if flag in OUTPUTS and not value.startswith("/"):
      raise ValueError(
        f"{word} is on the disks of the workers, deleted with the slice; use {flag}=gs://BUCKET/PATH"
      )
    if flag in ("--config", "--evaluation", "--study") and value.startswith("/"):
      raise ValueError(
        f"{word} is a path of this machine; put the recipe into the checkout, which is copied, and give its "
        "path there"
      )
  return Command(found, tuple(buckets))


def check(command: Command, copy: pathlib.Path, devices: int) -> str:
  """Runs the command's dry run in a copy of the checkout, where only what the workers get is found.

  Args:
    devices: the number of JAX devices of the slices; 0: unknown.
  Returns: what the dry run prints, or that there is none for this command.
  Raises: ValueError with its message if the command is wrong.
  """
  name = command.words[0]
  if name in REHEARSED:
    count = [f"--devices={devices}"] if devices else []
    found = _ssl_jax(copy, *command.words, "--dry-run", *count)
  else:
    found = _ssl_jax(copy, name, "--help")
  if found.returncode:
    raise ValueError(_message(found.stderr))
  if name in REHEARSED:
    return found.stdout.strip()
  return f"the command {name!r} has no quick dry run: only its name is checked"


def _message(stderr: str) -> str:
  """What ssl-jax prints when it ends with an error, without the progress before and the advice after it."""
  text = stderr.partition("ssl-jax: ")[2] or stderr
  return text.partition("\n(set SSL_JAX_TRACEBACK")[0].partition("\nRun `ssl-jax")[0].strip()


def _ssl_jax(copy: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
  """Runs a command of the copy, which lies first on the path of a module given by -m."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    [sys.executable, "-m", "ssl_jax", *words], cwd=copy, env=environment, capture_output=True, text=True
  )
