"""Tasks that measure a representation. Each task is one file with a function `make(**options) -> Task`.

The folder is the registry: a module with a top-level `def make(` is a task with the name of its file. All
other modules hold code that several tasks share.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from collections.abc import Callable

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.tasks.task import Task

LEARN_CLASSES = frozenset({"knn", "linear_probe", "low_shot"})  # tasks that need the class of training images
NEED_CLASSES = LEARN_CLASSES | {"classification", "robustness", "ttt"}  # tasks that need that of test images


def known() -> tuple[str, ...]:
  """Returns the names of the tasks in this folder, sorted.

  The function imports no task, so a missing optional package breaks only the task that needs it.
  """
  folder = pathlib.Path(__file__).parent
  sources = {path.stem: path for path in folder.glob("*.py")}
  sources |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
  return tuple(
    sorted(
      name
      for name, path in sources.items()
      if name != "__init__" and re.search(r"^def make\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    )
  )


def factory(name: str) -> Callable[..., Task]:
  """Returns the function `make` of the file called `name`.

  Raises: ValueError for an unknown name, with the nearest known ones.
  """
  if name not in known():
    raise ValueError(f"config.tasks: no task is called {name!r}{nearest(name, known())}")
  return importlib.import_module(f"{__name__}.{name}").make


def make(task: str, **options) -> Task:
  """Makes the task called `task` with its own options.

  Raises: ValueError for an unknown name or option, with the known and the nearest ones, or for an invalid
    value of an option.
  """
  return call_checked(factory(task), options, f"config.tasks.{task}")
