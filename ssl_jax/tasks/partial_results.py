"""Partial results of a task that takes hours, so that it can resume after an interruption."""

from __future__ import annotations

import json
import os
import pathlib

import jax
import numpy as np

from ssl_jax.log.run_log import read_npz

KEY = "identity"


class PartialResults:
  """One file with the arrays of one measurement. Process 0 writes the file and all processes read it, so its
  folder must be shared between them.
  """

  def __init__(self, path: pathlib.Path | None = None):
    """Uses the file `path`; with None, nothing is saved."""
    self._path = path

  def load(self, identity: dict) -> dict[str, np.ndarray]:
    """Returns the arrays that were saved for the measurement `identity`; {} if there are none.

    Arrays that were saved for another measurement are ignored.
    """
    if self._path is None or not self._path.exists():
      return {}
    try:
      arrays = read_npz(self._path, "starting from the first image")
    except ValueError as error:
      print(error)
      return {}
    return arrays if str(arrays.pop(KEY, "")) == _text(identity) else {}

  def save(self, identity: dict, arrays: dict[str, np.ndarray]) -> None:
    """Replaces the saved arrays atomically."""
    if self._path is None or jax.process_index():
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    new = self._path.with_suffix(".new.npz")
    np.savez(new, **arrays, **{KEY: _text(identity)})  # pyright: ignore[reportArgumentType]
    os.replace(new, self._path)

  def clear(self) -> None:
    """Deletes the file, after the measurement is complete."""
    if self._path is not None and not jax.process_index():
      self._path.unlink(missing_ok=True)


def _text(identity: dict) -> str:
  return json.dumps(identity, sort_keys=True, default=str)


NOTHING_KEPT = PartialResults()  # for a task whose partial results are not saved
