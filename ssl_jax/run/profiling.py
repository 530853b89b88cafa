"""Profiles a run: a trace of some steps, and the compiled train step as text."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import jax

from ssl_jax.core import PyTree


class Profile:
  """Traces some steps of a run into a folder. Every process writes the trace of its host and its devices."""

  def __init__(self, folder: pathlib.Path, steps: str, *, start: int):
    """Parses which steps to trace.

    Args:
      folder: where the trace is written.
      steps: "20-25" or "steps 20-25", counted from 1; "": none.
      start: the number of steps that are already done.
    Raises: ValueError for any other text, or for steps that are already done.
    """
    found = re.fullmatch(r"(?:steps? )?(\d+)-(\d+)", steps.strip())
    if steps and not found:
      raise ValueError(f"--profile={steps} is not a range of steps; use two numbers, such as 20-25")
    self._folder, (self._first, self._last) = folder, map(int, found.groups()) if found else (0, 0)
    if steps and not start < self._first <= self._last:
      raise ValueError(
        f"--profile={steps}: the run continues after step {start}; use later steps, the smaller number first"
      )

  def before(self, step: int) -> None:
    """Starts the trace if `step` is the first step to trace."""
    if step == self._first:
      jax.profiler.start_trace(self._folder)

  def after(self, step: int, state: PyTree) -> str:
    """Ends the trace after the last step to trace, and returns a line that says so; otherwise ""."""
    if step != self._last:
      return ""
    jax.block_until_ready(state)
    jax.profiler.stop_trace()
    return (
      f"traced steps {self._first} to {self._last} into {self._folder}; "
      "TensorBoard's profile plugin and Perfetto can open the trace"
    )


def dump(compiled: Any, folder: pathlib.Path) -> str:
  """Writes the optimised HLO of a compiled step and the compiler's estimates of its memory and cost.

  Returns: a line that says where.
  """
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "train_step.hlo.txt").write_text(compiled.as_text())
  memory = compiled.memory_analysis()
  sizes = {name: getattr(memory, name) for name in dir(memory) if name.endswith("_in_bytes")}
  (folder / "train_step.json").write_text(
    json.dumps({"memory": sizes, "cost": compiled.cost_analysis()}, indent=1, default=float)
  )
  return f"wrote the compiled step to {folder}"
