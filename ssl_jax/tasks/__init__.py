"""Ways to measure a representation: one file is one task is one `make(**options) -> Task`.

The folder is the registry: a module with a top-level `def make(` is a task under its file's name, every other
module is a part that tasks share.
"""

from __future__ import annotations

import importlib
import pathlib
import re

from ssl_jax.tasks.task import Task, check_choice


def known() -> tuple[str, ...]:
  """Names of the tasks in this folder, sorted. Nothing is imported, so a missing extra breaks its own task only."""
  sources = {path.stem: path for path in pathlib.Path(__file__).parent.glob("*.py") if path.stem != "__init__"}
  sources |= {path.parent.name: path for path in pathlib.Path(__file__).parent.glob("*/__init__.py")}
  return tuple(sorted(name for name, path in sources.items()
                      if re.search(r"^def make\(", path.read_text(encoding="utf-8"), re.MULTILINE)))


def make(name: str, **options) -> Task:
  """Makes the task `name` with that task's own options.

  Raises: ValueError for an unknown name, with the known and the nearest ones, or for an option's value.
  """
  check_choice("task", name, known())
  return importlib.import_module(f"{__name__}.{name}").make(**options)
