"""The files that a run writes beside its checkpoints: how they are appended to and read.

METRICS has one row of metrics for every `config.log_every` steps, STARTS one line for each start of the run,
ONLINE one row of scores for each measurement of `config.online`.
"""

from __future__ import annotations

import json
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

METRICS, STARTS, ONLINE = "metrics.jsonl", "starts.jsonl", "online.jsonl"


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the lines of a JSONL file that are valid JSON; [] if the file does not exist."""
  found = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      found.append(json.loads(line))
    except ValueError:  # the last line of a killed run, or a line that is being written
      continue
  return found


def read_json(path: str | pathlib.Path, cure: str) -> Any:
  """Reads a JSON file. Raises ValueError that names a damaged file and tells `cure`."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except ValueError as error:  # also UnicodeDecodeError
    raise ValueError(f"{path} is damaged or incomplete ({error}); {cure}") from error


def read_npz(path: str | pathlib.Path, cure: str) -> dict[str, np.ndarray]:
  """Reads the arrays of an .npz file. Pickled objects are never loaded, because that could run code.

  Raises: ValueError that names a damaged file, or one with pickled objects, and tells `cure`.
  """
  try:
    with pathlib.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
      return dict(stored)
  except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f"{path} is damaged or incomplete ({error}); {cure}") from error


def append(path: pathlib.Path, line: dict[str, Any]) -> None:
  """Appends a line to a JSONL file, which is created if it does not exist."""
  with path.open("a") as file:
    file.write(json.dumps(line) + "\n")


def clock(seconds: float) -> str:
  """Returns a duration as "h:mm:ss"; `seconds` is rounded."""
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
