"""ssl_jax: learn a visual representation without labels, measure it, keep learning at test time. Start at core.py.

The names below are imported when they are first used: `import ssl_jax` itself imports nothing.

recipe, check, check_variant: configs. train, evaluate, restore, plan: what the commands of the same names do. adapt: test-time training of arrays.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {  # public name: the module that defines it
  "EvaluateConfig": "config.schema",
  "TrainConfig": "config.schema",
  "adapt": "ttt",
  "check": "config.schema",
  "check_variant": "config.recipe_files",
  "evaluate": "run.evaluate",
  "plan": "planning",
  "recipe": "config.recipe",
  "restore": "run.restore",
  "train": "run.train",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(
      f"module 'ssl_jax' has no attribute {name!r}; its public names are {', '.join(sorted(_MODULES))}"
    )
  return getattr(importlib.import_module(f"ssl_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
  return sorted(__all__)
