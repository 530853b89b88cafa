"""Stores what is mined from each clip in a file, so that a mining that was stopped continues clip by clip."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.elements import Record

_HEADER = "header"


class ClipResult(NamedTuple):
  """What one clip gave."""

  records: Sequence[Record]
  rejected: Mapping[str, int]
  seconds: float = 0.0  # of video
  work: float = 0.0  # seconds of processor time
  error: str = ""  # why the clip is bad; "": it is not
  again: bool = False  # a second attempt may succeed, as after an error of a network disk


class ClipResults:
  """The results of clips, in a folder with one file for each clip."""

  def __init__(self, folder: pathlib.Path, root: str, settings: Mapping[str, Any]):
    """
    Args:
      root: the folder of the clips.
      settings: everything apart from the clips that the results depend on, of JSON types; results with other
        settings count as missing.
    """
    self.folder, self._root = folder, root
    self._settings = json.loads(json.dumps(settings))

  def is_stored(self, clip: str) -> bool:
    """Whether there is a result of this clip, given by its path relative to the root, as it is now.

    A result that says `again` does not count.
    """
    try:
      with np.load(self._path(clip)) as file:
        header = _header(file)
      return header["made_from"] == self._made_from(clip) and not header["again"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      return False

  def store(self, clip: str, result: ClipResult) -> None:
    """Writes the result of a clip atomically."""
    arrays, records = {}, []
    for number, record in enumerate(result.records):
      kinds = {}
      for name, value in record.items():
        kinds[name] = _put(arrays, f"{number}.{name}", value)
      records.append(kinds)
    header = {
      "made_from": self._made_from(clip),
      "records": records,
      "rejected": dict(result.rejected),
      "seconds": result.seconds,
      "work": result.work,
      "error": result.error,
      "again": result.again,
    }
    arrays[_HEADER] = _bytes_array(json.dumps(header).encode())
    path = self._path(clip)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    with unfinished.open("wb") as file:
      np.savez(file, **arrays)
    os.replace(unfinished, path)

  def load(self, clip: str) -> ClipResult:
    """Reads the result of a clip. Raises OSError if there is none."""
    with np.load(self._path(clip)) as file:
      header = _header(file)
      records = [
        {name: _get(file, f"{number}.{name}", kind) for name, kind in kinds.items()}
        for number, kinds in enumerate(header["records"])
      ]
    return ClipResult(
      records, header["rejected"], header["seconds"], header["work"], header["error"], header["again"]
    )

  def _path(self, clip: str) -> pathlib.Path:
    return self.folder / f"{hashlib.sha256(clip.encode()).hexdigest()[:32]}.npz"

  def _made_from(self, clip: str) -> dict:
    try:
      found = os.stat(os.path.join(self._root, clip))
    except OSError:  # a list may name clips that do not exist
      return {"clip": clip, "settings": self._settings}
    return {"clip": clip, "bytes": found.st_size, "changed": found.st_mtime_ns, "settings": self._settings}


def _put(arrays: dict[str, np.ndarray], name: str, value: Any) -> Any:
  """Adds a value of a record to the arrays; returns what the header says of it."""
  if isinstance(value, bytes):
    arrays[name] = _bytes_array(value)
    return {"kind": "bytes"}
  if isinstance(value, (list, tuple)):
    for number, part in enumerate(value):
      arrays[f"{name}.{number}"] = _bytes_array(part)
    return {"kind": "list", "count": len(value)}
  if isinstance(value, (str, int, float)):
    return {"kind": "plain", "value": value}
  arrays[name] = np.asarray(value)
  return {"kind": "array"}


def _get(file: Any, name: str, kind: Mapping[str, Any]) -> Any:
  if kind["kind"] == "plain":
    return kind["value"]
  if kind["kind"] == "list":
    return [file[f"{name}.{number}"].tobytes() for number in range(kind["count"])]
  return file[name].tobytes() if kind["kind"] == "bytes" else file[name]


def _header(file: Any) -> dict:
  return json.loads(file[_HEADER].tobytes())


def _bytes_array(data: bytes) -> np.ndarray:
  return np.frombuffer(data, np.uint8)
