"""Configs: written as recipes, completed with every default, checked once, read as frozen dataclasses ever after."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import ml_collections


class DataSpec(NamedTuple):
  """What a method may know of the data before it sees any."""

  num_examples: int
  num_classes: int
  batch_size: int  # global


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Where images come from and in which form they reach the device."""

  name: str  # "sample", "folder", "synthetic" or a TFDS data set
  data_dir: str = ""
  split: str = "train"
  size: int = 32  # side in pixels of what is delivered: the views ("host") or the image they are cut from ("device")
  crop: Literal["device", "host"] = "device"  # who cuts the random-resized crops
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of what the host resizes
  cache: bool = False  # decode everything once into memory: for small sets
  workers: int = 0  # decoding processes; 0 decodes in threads of this one
  max_bad_fraction: float = 0.01  # of undecodable files before the run stops


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
  """When the run is saved. It is always saved at the end and on SIGTERM or Ctrl-C."""

  every_steps: int = 1000
  keep: int = 3  # latest ones
  keep_every: int = 0  # also keep each that is a multiple of so many steps; 0: none


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartConfig:
  """The run whose encoder a new run starts from; an empty `workdir` starts from random weights."""

  workdir: str = ""
  step: int = 0  # which checkpoint; 0: the last
  weights: Literal["params", "ema"] = "params"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """One training run. `method`, `encoder`, `augment`, `optimizer` hold a `name` and its factory's options."""

  method: Mapping
  encoder: Mapping
  augment: Mapping
  optimizer: Mapping
  data: DataConfig
  batch_size: int  # global
  epochs: float
  start: StartConfig = StartConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  seed: int = 0
  log_every: int = 50  # steps
  tensorboard: bool = False
  sharding: Literal["replicate", "fsdp"] = "replicate"  # of parameters and optimiser over devices
  accumulate: int = 1  # parts that a batch is taken in, one after the other, to save memory; see core.make_train_step

  def __post_init__(self):
    for field in ("batch_size", "epochs", "log_every", "accumulate"):
      if getattr(self, field) <= 0:
        raise ValueError(f"config.{field} is {getattr(self, field)}; use a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateDataConfig:
  """Images to measure on; "" and 0 mean: as in the training run."""

  name: str = ""
  data_dir: str = ""
  train_split: str = ""
  test_split: str = "test"
  shuffle: bool = False  # the test images, by a fixed seed: for test-time training online where they lie class by class
  size: int = 0  # side of the images shown to the network; 0: that of the training views
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of the resize
  crop_ratio: float = 1.0  # share of the shorter side that the centre crop keeps: 0.875 for photographs
  cache: bool = False  # decode everything once into memory: for small sets read several times
  workers: int = 0

  def __post_init__(self):
    if not 0 < self.crop_ratio <= 1:
      raise ValueError(f"config.data.crop_ratio is {self.crop_ratio}; use a share in (0, 1], such as 0.875")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """Measurements of a trained backbone. `tasks` holds the options of each task under its name.

  A task that runs several times has names of its own choice there, each with `task`, the kind: stage3=dict(task="linear_probe", ...).
  """

  tasks: Mapping
  data: EvaluateDataConfig = EvaluateDataConfig()
  augment: Mapping = dataclasses.field(default_factory=lambda: {"name": "supervised"})  # of live linear probes
  batch_size: int = 256
  weights: Literal["params", "ema"] = "params"  # which copy of the network
  baselines: tuple[Literal["pixels", "untrained"], ...] = ()  # measured beside it
  seed: int = 0

  def __post_init__(self):
    if self.batch_size <= 0:
      raise ValueError(f"config.batch_size is {self.batch_size}; use a positive number")


def recipe(kind: type = TrainConfig, **sections) -> ml_collections.ConfigDict:
  """A ConfigDict with the given sections and every other option at its default, so that each can be overridden.

  Args:
    kind: TrainConfig or EvaluateConfig; sections: its fields, nested ones as dicts.
  Raises: ValueError for an unknown section or option, as `call_checked` does.
  """
  complete = {name: _plain(value) for name, value in {**_defaults(kind), **sections}.items()}
  for field, hint in typing.get_type_hints(kind).items():
    if dataclasses.is_dataclass(hint):
      complete[field] = {**_defaults(hint), **complete.get(field, {})}
  for section, factory in _factories(complete):
    _fill(complete, section, factory)
  return ml_collections.ConfigDict(complete)


def check(kind: type, config: Mapping):
  """Turns a ConfigDict, or the dict in a checkpoint, into the frozen dataclass `kind`.

  Raises: ValueError naming the field, its value and the nearest known names or the type it wants.
  """
  plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  return call_checked(kind, plain, "config")


def to_json(config) -> dict:
  """The dataclass as a JSON-able dict that `check` reads back."""
  return json.loads(json.dumps(dataclasses.asdict(config), default=dict))


def differences(old: Mapping, new: Mapping, where: str = "config") -> list[str]:
  """Lines "config.a.b: old -> new" for every leaf in which two JSON configs differ."""
  lines = []
  for name in sorted({*old, *new}):
    before, after = old.get(name, "absent"), new.get(name, "absent")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      lines += differences(before, after, f"{where}.{name}")
    elif before != after:
      lines.append(f"{where}.{name}: {before} -> {after}")
  return lines


def options_of(section: Mapping) -> dict:
  """A section's options without its `name`."""
  return {option: value for option, value in section.items() if option != "name"}


def nearest(name: str, known: Iterable[str]) -> str:
  """The end of an error message: what `name` may have meant, and all that is known."""
  known = sorted(known)
  close = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
  return (f"; did you mean {' or '.join(map(repr, close))}?" if close else ";") + f" known: {', '.join(known)}"


def call_checked(function, options: Mapping, where: str, *args):
  """Calls `function(*args, **options)` after checking each option's name and type against the signature.

  Tuples may come as lists; integers serve as floats; a field whose type is a dataclass takes a dict.
  Raises: ValueError naming `where`, the option, its value and the nearest known names or the type wanted.
  """
  known, hints = _signature(function)
  for name in options:
    if name not in known:
      raise ValueError(f"{where}.{name} is unknown{nearest(name, known)}")
  missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
  if missing:
    raise ValueError(f"{where}.{missing[0]} is missing; set it")
  return function(*args, **{name: _typed(value, hints.get(name, Any), f"{where}.{name}")
                            for name, value in options.items()})


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


def _signature(function) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
  """The keyword-only parameters of a factory that nobody has bound yet, and their types."""
  bound, base = {}, function
  while isinstance(base, functools.partial):
    bound, base = {**base.keywords, **bound}, base.func
  options = {n: p for n, p in inspect.signature(function).parameters.items()
             if p.kind is p.KEYWORD_ONLY and n not in bound}
  if "parent" in options:  # a linen module's own fields
    del options["parent"], options["name"]
  return options, typing.get_type_hints(base)


def _defaults(function) -> dict:
  if dataclasses.is_dataclass(function):  # a default made by a factory shows in the fields only
    made = {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            for f in dataclasses.fields(function)}
    return {name: _plain(value) for name, value in made.items() if value is not dataclasses.MISSING}
  return {n: p.default for n, p in _signature(function)[0].items() if p.default is not p.empty}


def _plain(value):
  return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def _factories(sections: Mapping) -> list[tuple[tuple[str, ...], Any]]:
  """(path of a section, the factory whose options it holds); imported here since factories import this file."""
  from ssl_jax import augment, methods, models, optim, tasks

  lookups = {"method": methods.factory, "encoder": models.factory, "augment": augment.factory}
  found = [((s,), lookup(sections[s].get("name", ""))) for s, lookup in lookups.items() if s in sections]
  found += [(("optimizer",), optim.make)] if "optimizer" in sections else []
  return found + [(("tasks", name), tasks.factory(options.get("task", name))) for name, options in sections.get("tasks", {}).items()]


def _fill(tree: dict, path: tuple[str, ...], factory) -> None:
  """Puts the factory's defaults under the options at `path`, in copies."""
  *above, last = path
  for name in above:
    tree[name] = dict(tree[name])
    tree = tree[name]
  tree[last] = {**_defaults(factory), **tree[last]}
