"""Options checked against the signature of the function that takes them; error messages that name the nearest known words."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal


def options_of(section: Mapping) -> dict:
  """A section's options without its `name`."""
  return {option: value for option, value in section.items() if option != "name"}


def nearest(name: str, known: Iterable[str]) -> str:
  """The end of an error message: what `name` may have meant, and all that is known."""
  known = sorted(known)
  close = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
  return (
    f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
  ) + f" known: {', '.join(known)}"


def call_checked(function, options: Mapping, where: str, *args):
  """Calls `function(*args, **options)` after checking each option's name and type against the signature.

  Tuples may come as lists; integers serve as floats; a field whose type is a dataclass takes a dict.
  Raises: ValueError naming `where`, the option, its value and the nearest known names or the type wanted.
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
  """`value` as `hint` wants it, or a ValueError."""
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
      raise ValueError(f"{where} is {value!r}; it takes {len(inner)} values")
    return tuple(_typed(v, h, where) for v, h in zip(value, inner))
  if origin is tuple:
    raise ValueError(f"{where} is {value!r}, a {type(value).__name__}; it takes a tuple, such as ()")
  if origin in (types.UnionType, typing.Union):
    return value
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
    raise ValueError(f"{where} is {value!r}, a {type(value).__name__}; it takes a {hint.__name__}")
  return value


def signature_of(function) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
  """The keyword-only parameters of a factory that nobody has bound yet, and their types."""
  bound, base = {}, function
  while isinstance(base, functools.partial):
    bound, base = {**base.keywords, **bound}, base.func
  options = {
    n: p
    for n, p in inspect.signature(function).parameters.items()
    if p.kind is p.KEYWORD_ONLY and n not in bound
  }
  if "parent" in options:  # a linen module's own fields
    del options["parent"], options["name"]
  return options, typing.get_type_hints(base)


def defaults_of(function) -> dict:
  if dataclasses.is_dataclass(function):  # a default made by a factory shows in the fields only
    made = {
      f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
      for f in dataclasses.fields(function)
    }
    return {name: plain(value) for name, value in made.items() if value is not dataclasses.MISSING}
  return {n: p.default for n, p in signature_of(function)[0].items() if p.default is not p.empty}


def plain(value):
  return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
