"""Recipes: ConfigDicts that contain every option.

This is the only module of the package that imports the modules to which the options belong.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from ssl_jax import augment, methods, models, optim, tasks
from ssl_jax.config.checked import defaults_of, plain
from ssl_jax.config.schema import TrainConfig, check, to_json
from ssl_jax.data import host


def recipe(kind: type = TrainConfig, **sections) -> ml_collections.ConfigDict:
  """Makes a ConfigDict of the given sections, with all other options at their defaults.

  It contains every option, so that each can be overridden.

  Args:
    kind: TrainConfig or EvaluateConfig.
    sections: fields of `kind`, nested ones as dicts.
  Raises: ValueError for an unknown section or option, as `call_checked` does.
  """
  complete = {name: plain(value) for name, value in {**defaults_of(kind), **sections}.items()}
  for field, hint in typing.get_type_hints(kind).items():
    if dataclasses.is_dataclass(hint):
      complete[field] = {**defaults_of(hint), **complete.get(field, {})}
  for section, factory in _factories(complete):
    _fill(complete, section, factory)
  return ml_collections.ConfigDict(complete)


def completed(stored: Mapping) -> dict[str, Any]:
  """Adds the defaults of options that were introduced after a checkpoint was saved to its config.

  Returns: the complete config, in the form of `to_json`.
  Raises: ValueError for an option that no longer exists.
  """
  return to_json(check(TrainConfig, recipe(TrainConfig, **stored)))


def _factories(sections: Mapping) -> list[tuple[tuple[str, ...], Any]]:
  """Lists (path of a section, the factory whose options it holds)."""
  lookups = {
    "method": methods.factory,
    "encoder": models.factory,
    "host": host.factory,
    "augment": augment.factory,
  }
  found: list[tuple[tuple[str, ...], Any]] = [
    ((s,), lookup(sections[s].get("name", ""))) for s, lookup in lookups.items() if s in sections
  ]
  found += [(("optimizer",), optim.make_optimizer)] if "optimizer" in sections else []
  return found + [
    (("tasks", name), tasks.factory(options.get("task", name)))
    for name, options in sections.get("tasks", {}).items()
  ]


def _fill(tree: dict, path: tuple[str, ...], factory) -> None:
  """Adds the factory's defaults to the options at `path`, without changing the original dicts."""
  *above, last = path
  for name in above:
    tree[name] = dict(tree[name])
    tree = tree[name]
  tree[last] = {**defaults_of(factory), **tree[last]}
