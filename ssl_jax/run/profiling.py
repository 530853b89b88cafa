"""Looking into a run: a profiler's trace of some steps, and the compiled program as text."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import jax

from ssl_jax.core import PyTree


class Profile:
  """Traces the steps of a run from `first` to `last` into `folder`; every process writes what its host and
  devices did.
  """

  def __init__(self, folder: pathlib.Path, steps: str, *, start: int):
    """
    Args:
      steps: "20-25" or "steps 20-25", counted from 1; "": none. start: steps that the run has done already.
    Raises: ValueError for other texts, or steps that are done already.
    """
    found = re.fullmatch(r"(?:steps? )?(\d+)-(\d+)", steps.strip())
    if steps and not found:
      raise ValueError(f"--profile={steps}: no steps; use two numbers, such as 20-25")
    self._folder, (self._first, self._last) = folder, map(int, found.groups()) if found else (0, 0)
    if steps and not start < self._first <= self._last:
      raise ValueError(
        f"--profile={steps}: the run goes on after step {start}; use later steps, the smaller number first"
      )

  def before(self, step: int) -> None:
    if step == self._first:
      jax.profiler.start_trace(self._folder)

  def after(self, step: int, state: PyTree) -> str:
    """A line for the reader where the trace is complete."""
    if step != self._last:
      return ""
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    return f"traced steps {self._first} to {self._last} into {self._folder}; TensorBoard's profile plugin and Perfetto read it"


def dump(compiled: Any, folder: pathlib.Path) -> str:
  """Writes a compiled step: its optimised HLO, and what the compiler says of memory and cost. A line for the
  reader.
  """
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "train_step.hlo.txt").write_text(compiled.as_text())
  memory = compiled.memory_analysis()
  sizes = {name: getattr(memory, name) for name in dir(memory) if name.endswith("_in_bytes")}
  (folder / "train_step.json").write_text(
    json.dumps({"memory": sizes, "cost": compiled.cost_analysis()}, indent=1, default=float)
  )
  return f"wrote the compiled step to {folder}"
