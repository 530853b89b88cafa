"""Configs: recipes are written, completed with every default, checked once, and read as frozen dataclasses
from then on.

checked: options against signatures; everybody may import it. schema: the sections. recipe_builder: the only
  module that
imports what the options belong to. recipe_files: where recipes lie. The names below are imported when first
  used, so
that importing `checked` imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {  # public name: the module that defines it
  "EvaluateConfig": "schema",
  "TrainConfig": "schema",
  "check": "schema",
  "recipe": "recipe_builder",
  "to_json": "schema",
}

__all__ = ["EvaluateConfig", "TrainConfig", "check", "recipe", "to_json"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module 'ssl_jax.config' has no attribute {name!r}")
  return getattr(importlib.import_module(f"ssl_jax.config.{_MODULES[name]}"), name)
