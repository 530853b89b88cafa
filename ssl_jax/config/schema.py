"""The sections of a config as frozen dataclasses: what a run or an evaluation can be told, and what it is
told by default.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Literal

import ml_collections

from ssl_jax.config.checked import call_checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Where images come from and in which form they reach the device."""

  name: str  # "sample", "folder", "synthetic" or a TFDS data set
  data_dir: str = ""
  split: str = "train"
  size: int = (
    32  # side in pixels of what is delivered: the views ("host") or the image they are cut from ("device")
  )
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
  """One training run. `method`, `encoder`, `host`, `augment` and `optimizer` hold a `name` and its factory's options."""

  method: Mapping
  encoder: Mapping
  augment: Mapping
  optimizer: Mapping
  data: DataConfig
  batch_size: int  # global
  epochs: float
  host: Mapping = dataclasses.field(
    default_factory=lambda: {"name": "image"}
  )  # what the host makes of a record
  start: StartConfig = StartConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  seed: int = 0
  log_every: int = 50  # steps
  tensorboard: bool = False
  sharding: Literal["replicate", "fsdp"] = "replicate"  # of parameters and optimiser over devices
  accumulate: int = (
    1  # parts that a batch is taken in, one after the other, to save memory; see core.make_train_step
  )

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
  shuffle: bool = (
    False  # the test images, by a fixed seed: for test-time training online where they lie class by class
  )
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

  A task that runs several times has names of its own choice there, each with `task`, the kind:
    stage3=dict(task="linear_probe", ...).
  """

  tasks: Mapping
  data: EvaluateDataConfig = EvaluateDataConfig()
  augment: Mapping = dataclasses.field(
    default_factory=lambda: {"name": "supervised"}
  )  # of live linear probes
  batch_size: int = 256
  weights: Literal["params", "ema"] = "params"  # which copy of the network
  baselines: tuple[Literal["pixels", "untrained"], ...] = ()  # measured beside it
  seed: int = 0

  def __post_init__(self):
    if self.batch_size <= 0:
      raise ValueError(f"config.batch_size is {self.batch_size}; use a positive number")


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
