"""The tables that `ssl-jax predict` writes, with their protocol beside them."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.log.run_log import read_json

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

  def columns(self) -> dict[str, Sequence]:
    """Name; seconds, of a video; prediction and probability, of the most probable class; the same of the
    trained network and the loss, where it learned at test time; the probability of every class."""
    columns = _first_columns(self.names, self.seconds) | _best(self.probabilities, self.class_names, "")
    if self.frozen is not None:
      columns |= _best(self.frozen, self.class_names, "_frozen")
    if self.losses is not None:
      columns["loss"] = [f"{loss:.6g}" for loss in self.losses]
    return columns | _by_class("p", self.probabilities, self.class_names)


class Maps(NamedTuple):
  """How much of each image the classes of a segmenter cover; the maps themselves are files."""

  names: np.ndarray  # str[N]
  fractions: np.ndarray  # f32[N, C]: of the pixels
  class_names: tuple[str, ...]
  changed: np.ndarray | None = None  # f32[N]: the fraction of pixels whose class learning has changed
  losses: np.ndarray | None = None  # f32[N]
  seconds: np.ndarray | None = None  # f64[N]
  milliseconds: float = 0.0

  def columns(self) -> dict[str, Sequence]:
    """Name; seconds, of a video; the fraction of changed pixels and the loss; the fraction of each class."""
    columns = _first_columns(self.names, self.seconds)
    for name, values in (("changed", self.changed), ("loss", self.losses)):
      if values is not None:
        columns[name] = [f"{value:.6g}" for value in values]
    return columns | _by_class("fraction", self.fractions, self.class_names)


class Boxes(NamedTuple):
  """The objects that a detector finds, image by image and by descending score."""

  names: np.ndarray  # str[N]: the image of each object
  boxes: np.ndarray  # f32[N, 4]: x1, y1, x2, y2 in pixels of the stored image
  scores: np.ndarray  # f32[N]
  classes: np.ndarray  # i32[N]
  class_names: tuple[str, ...]
  seconds: np.ndarray | None = None  # f64[N]
  milliseconds: float = 0.0

  def columns(self) -> dict[str, Sequence]:
    """Name; seconds, of a video; class, score and the corners of the box."""
    columns = _first_columns(self.names, self.seconds)
    columns |= {
      "class": [self.class_names[i] for i in self.classes],
      "score": [f"{score:.6f}" for score in self.scores],
    }
    corners = zip(("x1", "y1", "x2", "y2"), self.boxes.T)
    return columns | {name: [f"{value:.2f}" for value in values] for name, values in corners}


Found = Predictions | Maps | Boxes


def write_predictions(folder: pathlib.Path, found: Found, protocol: Mapping[str, Any]) -> None:
  """Writes the table of `found.columns()` and then the protocol, each atomically."""
  folder.mkdir(parents=True, exist_ok=True)
  new, columns = folder / f"{TABLE}.unfinished", found.columns()
  with new.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
    table = csv.writer(file)
    table.writerow(columns)
    table.writerows(zip(*columns.values()))
  os.replace(new, folder / TABLE)
  unfinished = folder / f"{PROTOCOL}.unfinished"
  told = {
    "kind": type(found).__name__,
    "class_names": list(found.class_names),
    "milliseconds": found.milliseconds,
  }
  unfinished.write_text(json.dumps({**protocol, **told}, indent=1))
  os.replace(unfinished, folder / PROTOCOL)


def read_protocol(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the protocol of a folder of predictions; {} if the table or the protocol does not exist."""
  path = folder / PROTOCOL
  return read_json(path, _CURE) if path.exists() and (folder / TABLE).exists() else {}


def read_predictions(folder: pathlib.Path) -> Found:
  """Reads what `write_predictions` wrote, without the probabilities of the trained network.

  Raises: ValueError for a damaged table.
  """
  protocol = read_protocol(folder)
  class_names = tuple(protocol["class_names"])
  with (folder / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
    header, *rows = csv.reader(file)
  if any(len(row) != len(header) for row in rows):
    raise ValueError(f"{folder / TABLE} is damaged or incomplete; {_CURE}")
  column = {name: [row[i] for row in rows] for i, name in enumerate(header)}
  numbers = lambda name: np.array(column[name], np.float32) if name in column else None
  names = np.array(column["name"], np.str_)
  shared: dict[str, Any] = {
    "seconds": np.array(column["seconds"], np.float64) if "seconds" in column else None,
    "milliseconds": protocol["milliseconds"],
  }
  if protocol["kind"] == "Boxes":
    number = {name: i for i, name in enumerate(class_names)}
    boxes = np.array([row[header.index("x1") :] for row in rows], np.float32).reshape(-1, 4)
    classes = np.array([number[name] for name in column["class"]], np.int32)
    return Boxes(names, boxes, np.array(column["score"], np.float32), classes, class_names, **shared)
  values = np.array([row[-len(class_names) :] for row in rows], np.float32)
  if protocol["kind"] == "Maps":
    return Maps(names, values, class_names, numbers("changed"), numbers("loss"), **shared)
  return Predictions(names, values, class_names, losses=numbers("loss"), **shared)


def _first_columns(names: np.ndarray, seconds: np.ndarray | None) -> dict[str, Sequence]:
  columns: dict[str, Sequence] = {"name": names.tolist()}
  return columns if seconds is None else columns | {"seconds": [f"{moment:.3f}" for moment in seconds]}


def _best(probabilities: np.ndarray, names: Sequence[str], suffix: str) -> dict[str, Sequence]:
  return {
    f"prediction{suffix}": [names[i] for i in probabilities.argmax(1)],
    f"probability{suffix}": [f"{p:.6f}" for p in probabilities.max(1)],
  }


def _by_class(what: str, values: np.ndarray, names: Sequence[str]) -> dict[str, Sequence]:
  """A column for each class; equal names are told apart by their numbers."""
  twice = {name for name in names if list(names).count(name) > 1}
  labels = [f"{name} {i}" if name in twice else name for i, name in enumerate(names)]
  return {f"{what}({label})": [f"{value:.6f}" for value in values[:, i]] for i, label in enumerate(labels)}
