"""Files of features: .npz, .csv and .parquet, each with a .json beside it that states the protocol."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.log.run_log import read_json, read_npz

_CURE = "delete it and write it again"


class Embedded(NamedTuple):
  """The features of images, in the order of the data set. An image that cannot be decoded has no row."""

  names: np.ndarray  # str[N]: path below the folder, or the id of the record
  features: np.ndarray  # f32[N, D]
  labels: np.ndarray  # i32[N]: class, or -1
  class_names: tuple[str, ...] = ()  # by label; (): no labels


def check_path(path: pathlib.Path) -> None:
  """Raises ValueError if the suffix is not that of a file of features, or its library is missing."""
  if path.suffix not in _WRITERS:
    raise ValueError(f"--output={path} ends in {path.suffix!r}; use one of {', '.join(_WRITERS)}")
  if path.suffix == ".parquet":
    _parquet()


def write_features(path: pathlib.Path, found: Embedded, protocol: dict[str, Any]) -> None:
  """Writes the features and then the protocol, each atomically.

  .npz: "names", "features", "labels", "class_names". .csv: name, class, f0, f1, ... .parquet: name, class and
  a list of numbers, "features". Of images without a class the class is empty.
  Raises: ValueError as `check_path`.
  """
  check_path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f"{path.stem}.unfinished{path.suffix}")
  _WRITERS[path.suffix](new, found)
  os.replace(new, path)
  unfinished = path.with_name(path.name + ".unfinished.json")
  unfinished.write_text(json.dumps({**protocol, "class_names": list(found.class_names)}, indent=1))
  os.replace(unfinished, _protocol_path(path))


def read_protocol(path: pathlib.Path) -> dict[str, Any]:
  """Reads the protocol of a file of features; {} if the file or its protocol does not exist."""
  protocol = _protocol_path(path)
  return read_json(protocol, _CURE) if path.exists() and protocol.exists() else {}


def read_features(path: pathlib.Path) -> Embedded:
  """Reads what `write_features` wrote. Raises ValueError for a damaged file."""
  class_names = tuple(read_protocol(path).get("class_names", ()))
  names, classes, features = _READERS[path.suffix](path)
  number = {name: i for i, name in enumerate(class_names)}
  labels = np.array([number.get(str(name), -1) for name in classes], np.int32)
  return Embedded(np.asarray(names, np.str_), np.asarray(features, np.float32), labels, class_names)


def classes_of(found: Embedded) -> list[str]:
  """The name of the class of each image; "" for an image without one."""
  return [found.class_names[label] if label >= 0 else "" for label in found.labels]


def _protocol_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name + ".json")


def _write_npz(path: pathlib.Path, found: Embedded) -> None:
  np.savez(
    path,
    names=found.names,
    features=found.features,
    labels=found.labels,
    class_names=np.array(found.class_names, np.str_),
  )


def _read_npz(path: pathlib.Path):
  stored = read_npz(path, _CURE)
  found = Embedded(stored["names"], stored["features"], stored["labels"], tuple(stored["class_names"]))
  return found.names, classes_of(found), found.features


def _write_csv(path: pathlib.Path, found: Embedded) -> None:
  with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
    table = csv.writer(file)
    table.writerow(["name", "class", *(f"f{i}" for i in range(found.features.shape[1]))])
    for name, of_class, row in zip(found.names, classes_of(found), found.features):
      table.writerow([name, of_class, *row])  # numpy prints the shortest digits that give the same float32


def _read_csv(path: pathlib.Path):
  with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
    rows = list(csv.reader(file))[1:]
  return [row[0] for row in rows], [row[1] for row in rows], [[float(v) for v in row[2:]] for row in rows]


def _write_parquet(path: pathlib.Path, found: Embedded) -> None:
  arrow, parquet = _parquet()
  width = found.features.shape[1]
  values = arrow.FixedSizeListArray.from_arrays(arrow.array(found.features.reshape(-1)), width)
  columns = {"name": arrow.array(found.names.tolist()), "class": arrow.array(classes_of(found))}
  parquet.write_table(arrow.table({**columns, "features": values}), path)


def _read_parquet(path: pathlib.Path):
  _, parquet = _parquet()
  table = parquet.read_table(path)
  features = table["features"].combine_chunks()
  flat = np.asarray(features.flatten())
  return table["name"].to_pylist(), table["class"].to_pylist(), flat.reshape(len(table), -1)


def _parquet() -> tuple[Any, Any]:
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError as error:
    raise ValueError(
      "a .parquet file needs pyarrow, which is not installed; pip install pyarrow, or use .npz or .csv"
    ) from error
  return pyarrow, pyarrow.parquet


_WRITERS: dict[str, Callable[[pathlib.Path, Embedded], None]] = {
  ".npz": _write_npz,
  ".csv": _write_csv,
  ".parquet": _write_parquet,
}
_READERS = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
