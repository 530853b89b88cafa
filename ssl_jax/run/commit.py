"""Which commit of the code runs. This module imports only the standard library."""

from __future__ import annotations

import functools
import pathlib
import subprocess

FILE = ".commit"  # in the root of a copy without git's folder: the commit of the checkout that was copied
SOURCES = ("ssl_jax", "configs")  # untracked files in these folders change results


def commit_of(root: pathlib.Path) -> str:
  """Returns 12 hexadecimal digits, followed by "-dirty" if a file differs from the commit or is a source that
  git does not track; "" if unknown.

  Args:
    root: the folder of the checkout, or of a copy of it that holds FILE.
  """
  if not (root / ".git").exists():
    file = root / FILE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
  commit = git(root, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12").strip()
  if commit and not commit.endswith("-dirty"):
    commit += "-dirty" if git(root, "ls-files", "--others", "--exclude-standard", *SOURCES) else ""
  return commit


@functools.cache
def running_commit() -> str:
  """Returns the commit of the code of this process; see `commit_of`."""
  return commit_of(pathlib.Path(__file__).parents[2])


def git(root: pathlib.Path, *words: str) -> str:
  """Returns what a git command prints in `root`; "" if it fails or git is not installed."""
  try:
    found = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, timeout=30)
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return found.stdout if found.returncode == 0 else ""
