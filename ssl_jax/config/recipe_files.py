"""Finds recipe files: the user's own, and those installed with the package.

Besides ssl_jax.config.checked, this module imports only the standard library, so that `--help` is fast.
"""

from __future__ import annotations

import ast
import inspect
import pathlib
import runpy
from collections.abc import Collection
from typing import Any

from ssl_jax.config.checked import nearest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder() -> pathlib.Path:
  """Returns the folder of the recipes that come with ssl_jax.

  In an installed package it is inside the package; in a checkout it is beside the package.
  """
  installed = _PACKAGE / "configs"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def installed_recipes() -> dict[str, str]:
  """Returns {name: first line of the docstring} of every recipe that comes with ssl_jax.

  A name is a path relative to `folder()`, such as "pretrain/moco.py". The files are parsed, not executed.
  """
  found = {}
  for path in sorted(folder().glob("*/*.py")):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found[path.relative_to(folder()).as_posix()] = text.partition("\n")[0]
  return found


def find_recipe(name: str, flag: str = "--config") -> str:
  """Returns the path of a recipe, followed by ":VARIANT" if `name` has a variant.

  Args:
    name: FILE.py or FILE.py:VARIANT. An existing file of that name takes precedence over an installed recipe;
      "configs/pretrain/moco.py" and "pretrain/moco.py" both name the installed recipe.
    flag: the flag that `name` was given to, for the error message.
  Raises: ValueError if neither exists; the message lists the nearest names of installed recipes.
  """
  file, colon, variant = name.partition(":")
  if file and pathlib.Path(file).is_file():
    return name
  installed = folder() / file.removeprefix("configs/")
  if file and installed.is_file():
    return f"{installed}{colon}{variant}"
  raise ValueError(
    f"{flag}={name}: there is no file {file!r}, and no installed recipe has that name"
    f"{nearest(file, installed_recipes())}"
  )


def load_recipe(name: str, function: str = "get_config", flag: str = "--config") -> Any:
  """Returns what the function of a recipe file returns for the variant that `name` gives.

  Args: see `find_recipe`.
  Raises: ValueError as `find_recipe`, for a file without that function, and for a variant of a file that has
    none.
  """
  file, colon, variant = find_recipe(name, flag).partition(":")
  made = runpy.run_path(file).get(function)
  if made is None:
    raise ValueError(f"{flag}={name}: the file has no function {function!r}; name a file that defines it")
  if colon and not inspect.signature(made).parameters:
    raise ValueError(f"{flag}={name}: the file has no variants; leave out {colon + variant!r}")
  return made(variant) if colon else made()


def check_variant(variant: str, variants: Collection[str], file: str) -> str:
  """Returns `variant` if it is one of a recipe's `variants`.

  A recipe calls this first in its `get_config`: `check_variant(variant, VARIANTS, __file__)`.

  Args:
    variant: what follows the colon in --config=FILE.py:VARIANT.
    variants: the names of all variants; of a dict, its keys.
    file: the recipe's `__file__`.
  Raises: ValueError for an unknown variant; the message names the recipe and the nearest known variants.
  """
  if variant in variants:
    return variant
  path = pathlib.Path(file).resolve()
  name = f"configs/{path.relative_to(folder()).as_posix()}" if path.is_relative_to(folder()) else file
  raise ValueError(f"{name} has no variant {variant!r}{nearest(variant, variants)}")
