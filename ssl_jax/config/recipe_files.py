"""Where recipes lie: files that the user names, and those that are installed with the package. Imports nothing but the standard library."""

from __future__ import annotations

import ast
import pathlib

from ssl_jax.config.checked import nearest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder() -> pathlib.Path:
  """The folder of the recipes that come with ssl_jax: inside an installed package, or beside the package in a checkout."""
  installed = _PACKAGE / "configs"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def installed_recipes() -> dict[str, str]:
  """The first line of the docstring of every recipe that comes with ssl_jax, by name, such as "pretrain/moco.py"."""
  found = {}
  for path in sorted(folder().glob("*/*.py")):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found[path.relative_to(folder()).as_posix()] = text.partition("\n")[0]
  return found


def find_recipe(name: str, flag: str = "--config") -> str:
  """The path of a recipe, with its variant.

  Args:
    name: FILE.py or FILE.py:VARIANT. A file of that name wins over an installed recipe; "configs/pretrain/moco.py" and "pretrain/moco.py" both
      name the installed one.
  Raises: ValueError if there is neither, with the nearest names of installed recipes.
  """
  file, colon, variant = name.partition(":")
  if file and pathlib.Path(file).is_file():
    return name
  installed = folder() / file.removeprefix("configs/")
  if file and installed.is_file():
    return f"{installed}{colon}{variant}"
  raise ValueError(
    f"{flag}={name}: there is no file {file}, and no installed recipe has that name{nearest(file, installed_recipes())}"
  )
