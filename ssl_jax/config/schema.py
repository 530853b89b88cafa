"""The sections of a config as frozen dataclasses: all options of runs and evaluations and their defaults."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast

import ml_collections

from ssl_jax.config.checked import call_checked

Config = TypeVar("Config")


def _check_fraction(value: float) -> None:
  if not 0 <= value <= 1:
    raise ValueError(f"config.data.max_bad_fraction is {value}; use a fraction from 0 to 1, such as 0.01")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The data set, and the form in which its images reach the device."""

  # "sample", "folder", "mask_folder", "coco", "voc_masks", "cityscapes", "ade20k", "coco_masks", "camvid",
  # "voc_boxes", "video_folder", "synthetic", a TFDS data set or MODULE:FUNCTION; see data/sources.py
  name: str
  data_dir: str = ""
  split: str = "train"
  empty: Literal["keep", "drop"] = "keep"  # whether images without objects are left out (coco, voc_boxes)
  # side in pixels of what the host delivers: the views (crop="host") or the image they are cut from
  size: int = 32
  crop: Literal["device", "host"] = "device"  # where the random-resized crops are cut
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # when the host resizes an image
  cache: bool = False  # decode all records into memory, once: for small data sets
  device_cache: bool = False  # keep them on each accelerator, too, which then makes its batches by itself
  workers: int = 0  # number of processes that decode; 0: threads of this process decode
  max_bad_fraction: float = 0.01  # fraction of records that may be undecodable before the run stops

  def __post_init__(self):
    if self.device_cache and not self.cache:
      raise ValueError("config.data.device_cache is True, but config.data.cache is not; set cache=True, too")
    if self.size <= 0:
      raise ValueError(f"config.data.size is {self.size}; use a number of pixels, such as 224")
    _check_fraction(self.max_bad_fraction)
    _check_workers(self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
  """When checkpoints are saved. A run is always saved at its end and on SIGTERM or Ctrl-C."""

  every_steps: int = 1000
  keep: int = 3  # how many of the latest checkpoints to keep
  keep_every: int = 0  # also keep each checkpoint whose step is a multiple of this; 0: none

  def __post_init__(self):
    if self.every_steps < 1:
      raise ValueError(
        f"config.checkpoint.every_steps is {self.every_steps}; use a positive number: one that is larger "
        "than the number of steps to save only at the end"
      )
    if self.keep < 1:
      raise ValueError(
        f"config.checkpoint.keep is {self.keep}, but a run must keep its last checkpoint; use a positive "
        "number, or keep_every=1 to keep all checkpoints"
      )
    if self.keep_every < 0:
      raise ValueError(
        f"config.checkpoint.keep_every is {self.keep_every}; use a positive number, or 0 to keep only the "
        "latest config.checkpoint.keep"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartConfig:
  """Warm start: the run whose encoder a new run starts from; with an empty `workdir`, weights are random."""

  workdir: str = ""
  step: int = 0  # which checkpoint; 0: the last
  weights: Literal["params", "ema"] = "params"
  parts: tuple[str, ...] = ("encoder",)  # of the parameters; ("encoder", "head") goes on with a trained head

  def __post_init__(self):
    if not self.parts or len(set(self.parts)) < len(self.parts):
      raise ValueError(f"config.start.parts is {self.parts}; name each part once, such as ('encoder',)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineConfig:
  """A measurement of the representation while it is trained; WORKDIR/online.jsonl gets the scores.

  The checkpoint with the best score is kept in WORKDIR/best, a folder that can be used as that of a run.
  """

  every_epochs: float = 0.0  # 0: never
  task: Literal["knn", "linear_probe", "low_shot", "classification"] = "knn"
  options: Mapping = dataclasses.field(default_factory=dict)  # of the task, where they are not its defaults
  train_split: str = ""  # labelled images; "": those of the training
  # The images that are classified. They choose the best checkpoint, so a final test should use other ones.
  test_split: str = ""
  keep_best: bool = True

  def __post_init__(self):
    if self.every_epochs < 0 or math.isinf(self.every_epochs):
      raise ValueError(f"config.online.every_epochs is {self.every_epochs}; use a number of epochs, or 0")
    if self.every_epochs and not self.test_split:
      raise ValueError(
        "config.online.test_split is ''; name images that are not trained on, such as 'train[95%:]' with "
        "config.data.split='train[:95%]', or 'test' if it may choose the checkpoint"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """One training run.

  `method`, `encoder`, `host`, `augment` and `optimizer` hold a `name` and the options of its factory.
  """

  method: Mapping
  encoder: Mapping
  augment: Mapping
  optimizer: Mapping
  data: DataConfig
  batch_size: int  # global
  epochs: float
  # the transform that turns a record into arrays on the host
  host: Mapping = dataclasses.field(default_factory=lambda: {"name": "image"})
  start: StartConfig = StartConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  online: OnlineConfig = OnlineConfig()
  seed: int = 0
  log_every: int = 50  # steps
  tensorboard: bool = False
  wandb: str = ""  # the project of Weights & Biases that gets the rows of metrics; "": none
  sharding: Literal["replicate", "fsdp"] = "replicate"  # of parameters and optimiser state over devices
  # number of parts into which a batch is divided and processed one by one to save memory; see
  # core.make_train_step. A BatchNorm group keeps its size: config.encoder.batch_groups are those of the batch
  accumulate: int = 1

  def __post_init__(self):
    for field in ("batch_size", "epochs", "log_every", "accumulate"):
      if getattr(self, field) <= 0:
        raise ValueError(f"config.{field} is {getattr(self, field)}; use a positive number")
    if math.isinf(self.epochs):
      raise ValueError("config.epochs is inf; use a number of passes over the data, such as 200")
    _check_seed(self.seed)


def _check_workers(workers: int) -> None:
  if workers < 0:
    raise ValueError(f"config.data.workers is {workers}; use 0 for threads, or a number of processes")


def _check_seed(seed: int) -> None:
  if seed < 0:
    raise ValueError(f"config.seed is {seed}; use 0 or a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateDataConfig:
  """The images to evaluate on. "" and 0 mean: as in the training run."""

  name: str = ""
  data_dir: str = ""
  train_split: str = ""
  test_split: str = "test"
  # shuffle the test images with a fixed seed: for online test-time training on data that are sorted by class
  shuffle: bool = False
  size: int = 0  # side in pixels of the images that the network sees; 0: that of the training views
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of the resize
  crop_ratio: float = 1.0  # fraction of the shorter side that the centre crop keeps: 0.875 for photographs
  cache: bool = False  # decode all images into memory, once: for small data sets that are read several times
  workers: int = 0  # number of processes that decode; 0: threads of this process decode
  # fraction of records that may be undecodable, and do not count, before the evaluation stops
  max_bad_fraction: float = 0.01

  def __post_init__(self):
    _check_fraction(self.max_bad_fraction)
    if not 0 < self.crop_ratio <= 1:
      raise ValueError(
        f"config.data.crop_ratio is {self.crop_ratio}; use a fraction in (0, 1], such as 0.875"
      )
    if self.size < 0:
      raise ValueError(f"config.data.size is {self.size}; use 0 for the size of the training, or more")
    _check_workers(self.workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """An evaluation of a trained backbone. `tasks` holds the options of each task under the task's name.

  A task that runs several times is listed under freely chosen names, each with the kind of task in `task`:
    stage3=dict(task="linear_probe", ...).
  """

  tasks: Mapping
  data: EvaluateDataConfig = EvaluateDataConfig()
  # the augmentation for linear probes with live=True
  augment: Mapping = dataclasses.field(default_factory=lambda: {"name": "supervised"})
  batch_size: int = 256
  weights: Literal["params", "ema"] = "params"  # the trained weights or their moving average
  # also evaluated, for comparison
  baselines: tuple[Literal["pixels", "untrained", "colour_histogram", "colour_statistics"], ...] = ()
  # number of training batches from which BatchNorm statistics are estimated anew; 0: those of the training
  precise_batches: int = 0
  seed: int = 0

  def __post_init__(self):
    if self.batch_size <= 0:
      raise ValueError(f"config.batch_size is {self.batch_size}; use a positive number")
    if self.precise_batches < 0:
      raise ValueError(f"config.precise_batches is {self.precise_batches}; use 0, or a number such as 200")
    _check_seed(self.seed)


def check(kind: type[Config], config: Mapping | ml_collections.ConfigDict | Config) -> Config:
  """Converts a ConfigDict, or the dict from a checkpoint, to the frozen dataclass `kind`; one stays as it is.

  Raises: ValueError that names the field, its value, and the nearest known names or the expected type.
  """
  if isinstance(config, kind):
    return config
  plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(cast(Any, config))
  return call_checked(kind, plain, "config")


def to_json(config) -> dict:
  """Converts a config dataclass to a JSON-serialisable dict, which `check` converts back."""
  return json.loads(json.dumps(dataclasses.asdict(config), default=dict))


def differences(old: Mapping, new: Mapping, where: str = "config") -> list[str]:
  """Returns a line "config.a.b: old -> new" for every leaf in which two JSON configs differ."""
  lines = []
  for name in sorted({*old, *new}):
    before, after = old.get(name, "absent"), new.get(name, "absent")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      lines += differences(before, after, f"{where}.{name}")
    elif before != after:
      lines.append(f"{where}.{name}: {before} -> {after}")
  return lines
