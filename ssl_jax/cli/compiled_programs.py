"""Keeps compiled programs on the disk, so that the next start of a command need not compile them again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import sys
from collections.abc import MutableMapping

OFF = ("off", "no", "none", "0", "false")
MOST_BYTES = 4 * 2**30  # of a folder; the oldest programs are deleted first
_SETTINGS = {  # also of small programs, of which a command has hundreds
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def keep_compiled_programs(chosen: str, environment: MutableMapping[str, str]) -> pathlib.Path | None:
  """Sets JAX's compilation cache in the environment, before jax is imported.

  What is set already in the environment (JAX_COMPILATION_CACHE_DIR) takes precedence.

  Args:
    chosen: the folder; "": a folder for this kind of processor in the user's cache; one of OFF: none.
  Returns: the folder if this call has created it, which the user should be told; otherwise None.
  """
  if "JAX_COMPILATION_CACHE_DIR" in environment or chosen.lower() in OFF:
    return None
  cache = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
  folder = (
    pathlib.Path(chosen).expanduser() if chosen else pathlib.Path(cache, "ssl_jax", "compiled", _machine())
  )
  new = not folder.exists()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    _drop_oldest(folder, MOST_BYTES)
  except OSError:  # a home that cannot be written to: everything works, without the cache
    return None
  environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
  for name, value in _SETTINGS.items():
    environment.setdefault(name, value)
  return folder if new else None


def _machine() -> str:
  """A name for the processor: programs for one may not run on another that shares the home folder."""
  flags = ""
  with contextlib.suppress(OSError):
    found = re.search(r"^(flags|Features)\s*:.*$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = found.group() if found else ""
  digest = hashlib.sha256(f"{platform.processor()} {flags} {sys.version_info[:2]}".encode()).hexdigest()
  return f"{platform.machine()}-{digest[:8]}"


def _drop_oldest(folder: pathlib.Path, most: int) -> None:
  """Deletes the oldest files until the others take at most `most` bytes."""
  files = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.is_file()]
  total = sum(stat.st_size for stat, _ in files)
  for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
    if total <= most:
      return
    with contextlib.suppress(OSError):  # another process may have deleted it
      os.remove(path)
    total -= stat.st_size
