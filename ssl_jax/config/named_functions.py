"""Functions that a config names as MODULE:FUNCTION: methods and data sets from outside of the package."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from ssl_jax.config.checked import nearest

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def names_function(name: str) -> bool:
  """Whether a name has the form MODULE:FUNCTION, such as "mypackage.mydata:make"."""
  return bool(_FORM.fullmatch(name))


def short_name(name: str) -> str:
  """The name for tables and files: "simsiam" of "examples.simsiam:make"; any other name stays as it is."""
  module, _, function = name.partition(":")
  return (module.rpartition(".")[2] if function == "make" else function) if names_function(name) else name


def import_function(name: str, option: str) -> Callable[..., Any]:
  """Imports the function that `name` names as MODULE:FUNCTION.

  The current folder is searched for the module last. It stays in `sys.path`, because worker processes and
  pickled objects import the module again.

  Args:
    option: the option that holds the name, such as "config.data.name", for the error message.
  Raises: ValueError if there is no such module, or no such function in it. An error in the module itself is
    raised as it is.
  """
  module, _, function = name.partition(":")
  if os.getcwd() not in sys.path and "" not in sys.path:
    sys.path.append(os.getcwd())
  try:
    found = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not error.name or not f"{module}.".startswith(f"{error.name}."):  # the module misses another one
      raise
    raise ValueError(
      f"{option} is {name!r}, but there is no module {error.name!r}; start the program in the folder that "
      "holds it, put that folder into PYTHONPATH, or install the package"
    ) from error
  if not callable(getattr(found, function, None)):
    known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
    raise ValueError(
      f"{option} is {name!r}, but {module} has no function {function!r}{nearest(function, known)}"
    )
  return getattr(found, function)
