"""Digests of the files of a folder, so that one that changed or went missing later is known by name."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

DIGESTS = "digests.json"
WITHOUT_DIGEST = "_CHECKPOINT_METADATA"  # Orbax's own notes of when it saved, which it completes last of all


def write_digests(folder: pathlib.Path) -> None:
  """Writes the digests of all files under `folder` into it, in one stroke."""
  beside = folder / f"{DIGESTS}.unfinished"
  beside.write_text(json.dumps(_digests(folder)))
  os.replace(beside, folder / DIGESTS)


def find_damage(folder: pathlib.Path) -> str:
  """What is wrong with a sealed folder, naming the file; "" if nothing is, or if it was never sealed.

  A file that a link puts there from elsewhere is wrong in any case, and not opened.
  """
  outside = [path for path in folder.rglob("*") if not path.resolve().is_relative_to(folder.resolve())]
  if outside:
    return f"{outside[0].relative_to(folder)} leads out of its folder"
  try:
    sealed = json.loads((folder / DIGESTS).read_text())
  except FileNotFoundError:
    return ""
  except ValueError:
    return f"{DIGESTS} is no JSON"
  found = _digests(folder)
  missing = sorted(sealed.keys() - found.keys())
  changed = sorted(name for name in sealed.keys() & found.keys() if sealed[name] != found[name])
  return ", ".join(
    [f"{name} is missing" for name in missing[:3]]
    + [f"{name} is not as it was saved" for name in changed[:3]]
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
