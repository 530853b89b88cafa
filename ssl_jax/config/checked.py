"""Checks options against the signature of the function that receives them.

The error messages for unknown names suggest the nearest known names.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast


def options_of(section: Mapping) -> dict:
  """Returns the options of a config section without its `name`."""
  return {option: value for option, value in section.items() if option != "name"}


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns the end of an error message about an unknown `name`.

  Returns: "; did you mean 'a' or 'b'? known: a, b, c", with at most two suggestions and all of `known`,
    sorted. If no known name is similar: "; known: a, b, c".
  """
  known = sorted(known)
  close = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
  return (
    f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
  ) + f" known: {', '.join(known)}"


def call_checked(function, options: Mapping, where: str, *args):
  """Calls `function(*args, **options)` after checking each option's name and type against the signature.

  Where the signature has that type, a list is converted to a tuple, an integer to a float, and a dict to a
  dataclass.

  Args:
    function: a factory; its keyword-only parameters that are not yet bound are the known options.
    where: the path of the options in the config, such as "config.data"; it is used in error messages.
    args: positional arguments, which are passed on unchecked.
  Returns: what `function` returns.
  Raises: ValueError for an unknown or missing option or a value of the wrong type. The message names `where`,
    the option, its value, and the nearest known names or the expected type.
  """
  known, hints = signature_of(function)
  for name in options:
    if name not in known:
      raise ValueError(f"{where}.{name} is unknown{nearest(name, known)}")
  missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
  if missing:
    raise ValueError(f"{where}.{missing[0]} is missing; set it")
  return function(
    *args, **{name: _typed(value, hints.get(name, Any), f"{where}.{name}") for name, value in options.items()}
  )


def _typed(value, hint, where: str):
  """Returns `value` converted to the type `hint`; raises ValueError if it cannot be converted."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
    return call_checked(hint, value, where)
  if origin is Literal:
    if value not in parts:
      raise ValueError(f"{where} is {value!r}{nearest(str(value), map(str, parts))}")
    return value
  if origin is tuple and isinstance(value, (tuple, list)):
    inner = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    if len(inner) != len(value):
      raise ValueError(f"{where} is {value!r}; use {len(inner)} values")
    return tuple(_typed(v, h, where) for v, h in zip(value, inner))
  if origin is tuple:
    raise ValueError(f"{where} is {value!r} of type {type(value).__name__}; use a tuple, such as ()")
  if origin in (types.UnionType, typing.Union):
    return value
  if isinstance(value, float) and math.isnan(value):
    raise ValueError(f"{where} is not a number (nan); use a number")
  if isinstance(value, int) and not -(2**63) <= value < 2**63:
    raise ValueError(f"{where} is {value}; use a number of at most 64 bits, below 2^63")
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
    raise ValueError(
      f"{where} is {value!r} of type {type(value).__name__}; use a value of type {hint.__name__}"
    )
  return value


def signature_of(function) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
  """Returns the options of a factory: the keyword-only parameters that no functools.partial has bound.

  Returns: ({name: parameter}, {name: type}). The first holds exactly the options; of a flax.linen module
    these are its fields without `parent` and `name`. The second may also hold types of other parameters.
  """
  bound, base = {}, function
  while isinstance(base, functools.partial):
    bound, base = {**base.keywords, **bound}, base.func
  options = {
    n: p
    for n, p in inspect.signature(function).parameters.items()
    if p.kind is p.KEYWORD_ONLY and n not in bound
  }
  if "parent" in options:  # a linen module: leave out the two fields that every module has
    del options["parent"], options["name"]
  return options, typing.get_type_hints(base)


def defaults_of(function) -> dict:
  """Returns {option: default} of the options of a factory, or fields of a dataclass, that have a default.

  If the default of a dataclass field is a dataclass itself, it is returned as a dict.
  """
  if dataclasses.is_dataclass(function):  # only the fields show a default that a default_factory makes
    made = {
      f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
      for f in dataclasses.fields(function)
    }
    return {name: plain(value) for name, value in made.items() if value is not dataclasses.MISSING}
  return {n: p.default for n, p in signature_of(function)[0].items() if p.default is not p.empty}


def plain(value):
  """Returns a dataclass as a dict, and any other value unchanged."""
  return dataclasses.asdict(cast(Any, value)) if dataclasses.is_dataclass(value) else value


def leaves(config: Mapping, where: str) -> list[str]:
  """Returns the dotted paths of all leaves of a nested dict, each with the prefix `where`."""
  inner = [leaves(v, f"{where}.{k}") if isinstance(v, dict) else [f"{where}.{k}"] for k, v in config.items()]
  return [name for names in inner for name in names]
