"""Where a task that takes hours keeps what it has found, so that it goes on after it was stopped."""

from __future__ import annotations

import json
import os
import pathlib

import jax
import numpy as np

KEY = "identity"


class PartialResults:
  """One file of arrays that belong to one measurement. Process 0 writes, all read: the folder is shared by
  the processes.
  """

  def __init__(self, path: pathlib.Path | None = None):
    """None: nothing is kept."""
    self._path = path

  def load(self, identity: dict) -> dict[str, np.ndarray]:
    """The arrays that were kept for this very measurement; {} if there are none, or those of another."""
    if self._path is None or not self._path.exists():
      return {}
    with np.load(self._path) as found:
      arrays = dict(found)
    return arrays if str(arrays.pop(KEY)) == _text(identity) else {}

  def save(self, identity: dict, arrays: dict[str, np.ndarray]) -> None:
    """Replaces what was kept, whole or not at all."""
    if self._path is None or jax.process_index():
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    new = self._path.with_suffix(".new.npz")
    np.savez(new, **arrays, **{KEY: _text(identity)})
    os.replace(new, self._path)

  def clear(self) -> None:
    """The measurement is done."""
    if self._path is not None and not jax.process_index():
      self._path.unlink(missing_ok=True)


def _text(identity: dict) -> str:
  return json.dumps(identity, sort_keys=True, default=str)


NOTHING_KEPT = PartialResults()  # for a task whose partial results are not saved
