"""Writes and checks digests of the files in a folder, to detect files that were changed or removed later."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

DIGESTS = "digests.json"
WITHOUT_DIGEST = "_CHECKPOINT_METADATA"  # Orbax's own metadata, which it completes after the digests


def write_digests(folder: pathlib.Path) -> None:
  """Writes the digests of all files under `folder` into it, atomically."""
  unfinished = folder / f"{DIGESTS}.unfinished"
  unfinished.write_text(json.dumps(_digests(folder)))
  os.replace(unfinished, folder / DIGESTS)


def find_damage(folder: pathlib.Path) -> str:
  """Checks a folder against its digests; returns what is wrong, with the names of up to six files, or "".

  A folder without digests counts as intact. A symbolic link that leads out of the folder is always reported,
  and its target is not opened.
  """
  outside = [path for path in folder.rglob("*") if not path.resolve().is_relative_to(folder.resolve())]
  if outside:
    return f"{outside[0].relative_to(folder)} is a link that leads out of its folder"
  try:
    stored = json.loads((folder / DIGESTS).read_text())
  except FileNotFoundError:
    return ""
  except ValueError:
    return f"{DIGESTS} is not valid JSON"
  try:
    found = _digests(folder)
  except FileNotFoundError as error:  # deleted since it was listed
    return f"{pathlib.Path(error.filename).name} is missing"
  missing = sorted(stored.keys() - found.keys())
  changed = sorted(name for name in stored.keys() & found.keys() if stored[name] != found[name])
  return ", ".join(
    [f"{name} is missing" for name in missing[:3]]
    + [f"{name} differs from what was saved" for name in changed[:3]]
  )


def _digests(folder: pathlib.Path) -> dict[str, str]:
  files = sorted(
    path
    for path in folder.rglob("*")
    if path.is_file() and not path.name.startswith((DIGESTS, WITHOUT_DIGEST))
  )
  with ThreadPoolExecutor() as pool:
    return dict(zip((path.relative_to(folder).as_posix() for path in files), pool.map(_digest, files)))


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
