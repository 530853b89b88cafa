"""The table that `ssl-jax predict` writes, with its protocol beside it."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.log.run_log import read_json
from ssl_jax.view.class_names import name_classes

TABLE, PROTOCOL = "predictions.csv", "predictions.json"
_CURE = "delete it and predict again"


class Predictions(NamedTuple):
  """What a classifier says of images, in their order. An image that cannot be decoded has no row."""

  names: np.ndarray  # str[N]: path below the folder, id of the record, or "frame 7"
  probabilities: np.ndarray  # f32[N, C]
  class_names: tuple[str, ...]
  frozen: np.ndarray | None = None  # f32[N, C]: of the trained network, where it learned at test time
  losses: np.ndarray | None = None  # f32[N]: of what it learned, at the last step
  seconds: np.ndarray | None = None  # f64[N]: of the frames of a video
  milliseconds: float = 0.0  # of an image, without compilation; 0: it was not measured


def write_predictions(folder: pathlib.Path, found: Predictions, protocol: dict[str, Any]) -> None:
  """Writes the table and then the protocol, each atomically.

  The columns: name; seconds, of a video; prediction and probability, of the most probable class; the same of
  the trained network and the loss, where it learned at test time; the probability of every class.
  """
  folder.mkdir(parents=True, exist_ok=True)
  new = folder / f"{TABLE}.unfinished"
  columns = _columns(found)
  with new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
    table = csv.writer(file)
    table.writerow(columns)
    table.writerows(zip(*columns.values()))
  os.replace(new, folder / TABLE)
  unfinished = folder / f"{PROTOCOL}.unfinished"
  told = {"class_names": list(found.class_names), "milliseconds": found.milliseconds}
  unfinished.write_text(json.dumps({**protocol, **told}, indent=1))
  os.replace(unfinished, folder / PROTOCOL)


def read_protocol(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the protocol of a folder of predictions; {} if the table or the protocol does not exist."""
  path = folder / PROTOCOL
  return read_json(path, _CURE) if path.exists() and (folder / TABLE).exists() else {}


def read_predictions(folder: pathlib.Path) -> Predictions:
  """Reads what `write_predictions` wrote, without the probabilities of the trained network."""
  protocol = read_protocol(folder)
  class_names = tuple(protocol["class_names"])
  with (folder / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
    header, *rows = csv.reader(file)
  if any(len(row) != len(header) for row in rows):
    raise ValueError(f"{folder / TABLE} is damaged or incomplete; {_CURE}")
  numbers = np.array([row[-len(class_names) :] for row in rows], np.float32)
  cell = lambda name: np.array([row[header.index(name)] for row in rows], np.float64)
  return Predictions(
    np.array([row[0] for row in rows], np.str_),
    numbers,
    class_names,
    losses=cell("loss").astype(np.float32) if "loss" in header else None,
    seconds=cell("seconds") if "seconds" in header else None,
    milliseconds=protocol["milliseconds"],
  )


def _columns(found: Predictions) -> dict[str, Any]:
  names = name_classes(found.class_names, found.probabilities.shape[1])
  columns: dict[str, Any] = {"name": found.names}
  if found.seconds is not None:
    columns["seconds"] = [f"{moment:.3f}" for moment in found.seconds]
  columns |= _best(found.probabilities, names, "")
  if found.frozen is not None:
    columns |= _best(found.frozen, names, "_frozen")
  if found.losses is not None:
    columns["loss"] = [f"{loss:.6g}" for loss in found.losses]
  return columns | {
    f"p({name})": [f"{p:.6f}" for p in found.probabilities[:, i]] for i, name in enumerate(names)
  }


def _best(probabilities: np.ndarray, names: list[str], suffix: str) -> dict[str, list[str]]:
  best = probabilities.argmax(1)
  return {
    f"prediction{suffix}": [names[i] for i in best],
    f"probability{suffix}": [f"{p:.6f}" for p in probabilities.max(1)],
  }
