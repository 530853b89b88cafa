"""The JSONL files of a run: a row of figures every so many steps, a line each time it was started."""

from __future__ import annotations

import json
import pathlib
from typing import Any

METRICS, STARTS = "metrics.jsonl", "starts.jsonl"


def lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines that are whole; [] if there is no such file."""
  found = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      found.append(json.loads(line))
    except ValueError:  # the last line of a killed run, or one being written
      continue
  return found


def append(path: pathlib.Path, line: dict[str, Any]) -> None:
  """Adds a line."""
  with path.open("a") as file:
    file.write(json.dumps(line) + "\n")


def clock(seconds: float) -> str:
  """h:mm:ss"""
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
