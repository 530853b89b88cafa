"""Flags of commands: how they are declared and how a command line is parsed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from absl import flags
from ml_collections import config_flags

from ssl_jax.config.checked import nearest
from ssl_jax.config.recipe_files import find_recipe

RECIPES = ("config", "evaluation")  # flags that name a recipe


class Flag(NamedTuple):
  """One flag of a command. A flag in RECIPES names a config file whose options can be overridden."""

  name: str
  default: object  # None: the flag has no default
  help: str
  required: bool = True  # if it has no default


class Command(NamedTuple):
  """A command: the function that is called with the values of its flags, and the flags."""

  run: Callable[[Any], None]
  flags: tuple[Flag, ...]
  takes_words: bool = False  # whether words that are not flags may follow the command


CONFIG = Flag(
  "config", None, "a recipe, FILE.py or FILE.py:VARIANT; --config.section.option=value changes an option"
)
WORKDIR = Flag("workdir", None, "the folder of the run: checkpoints, metrics, evaluations")


def parse(name: str, command: Command, words: list[str]) -> types.SimpleNamespace:
  """Returns the values of the command's flags; `rest` holds the words that are not flags. Exits with status 2 for wrong words."""
  values = flags.FlagValues()
  try:
    words = _with_recipe_files([_underscored(word) for word in words])
    for spec in command.flags:
      _define(spec, values, words)
    _check_overrides(words)
    rest = values([f"ssl-jax {name}", *words])[1:]
    missing = [
      spec for spec in command.flags if spec.default is None and spec.required and not values[spec.name].value
    ]
    if missing:
      raise ValueError(f"--{missing[0].name} is missing: {missing[0].help}")
    if rest and not command.takes_words:
      raise ValueError(f"{rest[0]!r} is not a flag; flags start with --")
  except (flags.Error, ValueError, OSError) as error:
    reason = str(error).strip()
    if "Traceback" in reason:  # what a recipe raised, as ml_collections reports it
      reason = reason.splitlines()[-1].partition(": ")[2]
    exit_with(f"{reason}\n`ssl-jax {name} --help` says what it takes.", 2)
  if "://" in (getattr(values, "workdir", None) or ""):
    exit_with(
      f"--workdir={values.workdir} is not a folder; mount the bucket and name the folder, as launch/tpu_pod.sh does by itself",
      2,
    )
  return types.SimpleNamespace(rest=rest, **{spec.name: values[spec.name].value for spec in command.flags})


def exit_with(message: str, status: int) -> NoReturn:
  """Prints the message to stderr and ends the process."""
  print(f"ssl-jax: {message}", file=sys.stderr)
  sys.exit(status)


def _define(spec: Flag, values: flags.FlagValues, words: list[str]) -> None:
  if spec.name in RECIPES:
    config_flags.DEFINE_config_file(
      spec.name, spec.default, spec.help, flag_values=values, sys_argv=["ssl-jax", *words]
    )
  else:
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer}.get(type(spec.default), flags.DEFINE_string)
    define(spec.name, spec.default, spec.help, flag_values=values)


def _underscored(word: str) -> str:
  """--over-epochs=x as --over_epochs=x."""
  name, *value = word.split("=", 1)
  return "=".join(["--" + name[2:].replace("-", "_"), *value]) if name.startswith("--") else word


def _with_recipe_files(words: list[str]) -> list[str]:
  """The words with every `--config FILE` as `--config=FILE` and FILE as the path where the recipe lies."""
  found, words = [], list(words)
  while words:
    word = words.pop(0)
    name, equals, value = word.lstrip("-").partition("=")
    if word.startswith("-") and name in RECIPES:
      value = value if equals else (words.pop(0) if words else "")
      word = f"--{name}={find_recipe(value, f'--{name}')}"
    found.append(word)
  return found


def _check_overrides(words: list[str]) -> None:
  """Refuses `--config.x` that the config lacks, naming the nearest options, before absl sees it."""
  for recipe in RECIPES:
    file = next((word.split("=", 1)[1] for word in words if word.startswith(f"--{recipe}=")), None)
    if file is None:
      continue
    loader, alone = flags.FlagValues(), ["ssl-jax", f"--{recipe}={file}"]
    config_flags.DEFINE_config_file(recipe, flag_values=loader, sys_argv=alone)
    loader(alone)
    options = _options(loader[recipe].value.to_dict(), recipe)
    for word in words:
      name = word.lstrip("-").split("=")[0]
      if name.startswith(f"{recipe}.") and name not in options:
        raise ValueError(f"--{name} is unknown{nearest(name, options)}")


def _options(config: dict, where: str) -> list[str]:
  inner = [
    _options(v, f"{where}.{k}") if isinstance(v, dict) else [f"{where}.{k}"] for k, v in config.items()
  ]
  return [name for names in inner for name in names]
