"""ssl_jax: self-supervised visual representation learning, its evaluation, and test-time training.

Read core.py first. The public names are imported on first use; `import ssl_jax` alone imports no module.

recipe, load_recipe, check, check_variant: make, load and check configs. train, evaluate, plan: the functions
behind the commands of the same names. define_study, study: make and run a study, several runs that are
compared. restore: the network of a run, with encode, pyramid and predict of arrays. embed: the features of a
folder of images, with names. predict: the classes of images or frames without labels. adapt: test-time
training on arrays.
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
  "define_study": "studies.definition",
  "embed": "apply.embed",
  "evaluate": "run.evaluate",
  "load_recipe": "config.recipe_files",
  "plan": "planning",
  "predict": "apply.predict",
  "recipe": "config.recipe_builder",
  "restore": "run.restore",
  "study": "studies.runner",
  "train": "run.train",
}

__all__ = ["__version__", *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(
      f"module 'ssl_jax' has no attribute {name!r}; its public names are {', '.join(sorted(_MODULES))}"
    )
  return getattr(importlib.import_module(f"ssl_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
  return sorted(__all__)
