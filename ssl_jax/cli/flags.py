"""Declares the flags of commands and parses command lines."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, cast

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssl_jax.config.checked import leaves, nearest
from ssl_jax.config.recipe_files import find_recipe

RECIPES = ("config", "evaluation")  # the flags whose value is a recipe


class Flag(NamedTuple):
  """One flag of a command. The value of a flag in RECIPES is a recipe, whose options can be overridden."""

  name: str  # with underscores; the command line also accepts dashes
  default: Any  # None: no default. Its type, bool, int or str, is the type of the flag.
  help: str
  required: bool = True  # only read if the flag has no default


class Command(NamedTuple):
  """A command of `ssl-jax`."""

  run: Callable[[Any], None]  # called with the result of `parse`; its docstring is the help text
  flags: tuple[Flag, ...]
  takes_words: bool = False  # whether it accepts positional arguments, that is, words that are not flags


CONFIG = Flag(
  "config",
  None,
  "the recipe, FILE.py or FILE.py:VARIANT; `ssl-jax recipes` lists the installed ones. "
  "--config.SECTION.OPTION=VALUE overrides an option of the recipe",
)
WORKDIR = Flag("workdir", None, "the folder of the run, which holds its checkpoints, metrics and evaluations")


def parse(name: str, command: Command, words: list[str]) -> types.SimpleNamespace:
  """Parses the words that follow the name of a command.

  Returns: a namespace with the value of each flag, and with `rest`, the list of positional arguments. The
    value of a flag in RECIPES is a ConfigDict, or None if the flag was not given.
  If the words are wrong, the process exits with status 2 and a message on stderr.
  """
  values = flags.FlagValues()
  try:
    words = _with_recipe_files([_underscored(word) for word in words])
    for spec in command.flags:
      _define(spec, values, words)
    _check_overrides(words)
    rest = values([f"ssl-jax {name}", *words])[1:]
    needed = [spec for spec in command.flags if spec.default is None and spec.required]
    if "print_config" in values and values["print_config"].value:
      needed = [CONFIG]
    missing = [spec for spec in needed if not values[spec.name].value]
    if missing:
      raise ValueError(f"--{missing[0].name} is missing: {missing[0].help}")
    if rest and not command.takes_words:
      raise ValueError(f"{rest[0]!r} is not a flag; the name of a flag starts with --")
  except (flags.Error, ValueError, OSError) as error:
    reason = str(error).strip()
    if "Traceback" in reason:  # ml_collections reports an error raised by a recipe with its traceback
      reason = reason.splitlines()[-1].partition(": ")[2]
    exit_with(f"{reason}\nRun `ssl-jax {name} --help` for the flags of this command.", 2)
  if "://" in (getattr(values, "workdir", None) or ""):
    exit_with(
      f"--workdir={values.workdir} is a URL, not a folder; mount the bucket and give the path of the mounted "
      "folder (launch/tpu_pod.sh does this by itself)",
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
  """Returns the word with underscores in the name of its flag: --over_epochs=x for --over-epochs=x."""
  name, *value = word.split("=", 1)
  return "=".join(["--" + name[2:].replace("-", "_"), *value]) if name.startswith("--") else word


def _with_recipe_files(words: list[str]) -> list[str]:
  """Returns the words with each `--config FILE` as `--config=FILE`, and FILE as the path of the recipe."""
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
  """Raises ValueError for `--config.x` if the recipe has no option x; the message names the nearest options.

  absl, which parses the words later, would only report an unknown flag.
  """
  for recipe in RECIPES:
    file = next((word.split("=", 1)[1] for word in words if word.startswith(f"--{recipe}=")), None)
    if file is None:
      continue
    loader, alone = flags.FlagValues(), ["ssl-jax", f"--{recipe}={file}"]
    config_flags.DEFINE_config_file(recipe, flag_values=loader, sys_argv=alone)
    loader(alone)
    options = leaves(cast(ConfigDict, loader[recipe].value).to_dict(), recipe)
    for word in words:
      name = word.lstrip("-").split("=")[0]
      if name.startswith(f"{recipe}.") and name not in options:
        raise ValueError(f"--{name} is unknown{nearest(name, options)}")
