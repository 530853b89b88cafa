"""Test-time training under corruption: the error of a network that adapts to each test image before it
predicts the class of the image.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import optim, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Augment, Batch, Key
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks.adapted_splits import AdaptedRows, Work, adapt_each, adapt_streams, pixels_of
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.classification import classifier_of, classify, in_own_classes
from ssl_jax.tasks.corrupted import Corruptions, choose_corruptions, corrupted_splits, origin
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.partial_results import NOTHING_KEPT, PartialResults
from ssl_jax.tasks.task import Result, Task, TaskData, check_choice, silent
from ssl_jax.tasks.ttt_report import report

CURE = (
  "or set config.tasks.ttt.objective to 'tent', 'memo' or 'self_training', which any classifier can learn"
)


class Settings(NamedTuple):
  """The options of the task except those of the corruptions, see `make`."""

  objective: ttt.Objective
  prior: float
  confidence: float
  mode: str
  steps: int
  copies: int
  learning_rate: float
  optimizer: Literal["sgd", "nesterov", "adamw"]
  momentum: float
  weight_decay: float
  threshold: float
  micro_batches: int
  trainable: tuple[str, ...]
  together: int
  curve: bool


def make(
  *,
  objective: ttt.Objective = "own",
  prior: float = 16.0,
  confidence: float = 0.9,
  mode: Literal["standard", "online"] = "standard",
  steps: int = 10,
  copies: int = 32,
  learning_rate: float = 0.001,
  optimizer: Literal["sgd", "nesterov", "adamw"] = "sgd",
  momentum: float = 0.0,
  weight_decay: float = 0.0,
  trainable: tuple[str, ...] = (),
  threshold: float = ttt.ALWAYS,
  micro_batches: int = 1,
  together: int = 0,
  curve: bool = False,
  corruptions: tuple[str, ...] = (),
  severities: tuple[int, ...] = (5,),
  table: str = "",
  textures: str = "",
  released: str = "",
  examples: int = 0,
) -> Task:
  """Measures the errors with and without adaptation on the same images, with standard errors, and the cost of
  the adaptation.

  Standard: the adaptation to each image starts from the trained weights. Online: the images of one corruption
  and severity form a stream in the order of the split; each image is predicted after learning on it, and the
  next image starts from the adapted weights. In both modes, an image whose adaptation diverges is predicted
  without adaptation and counted as diverged. A run that was interrupted resumes where it stopped.

  Args:
    objective: what is learned: "own": the task of the network, such as rotation prediction; or a baseline
      that needs a classifier alone: "norm", "tent", "memo", "self_training", see `ttt.objectives`. "norm"
      takes no gradient, so that the options of the optimiser have no effect.
    prior: weight of the BatchNorm statistics of training in images, against one test image, see
      `ttt.with_objective`; no effect on "own", which keeps them, and without BatchNorm.
    confidence: for "self_training": the probability above which a prediction becomes a label.
    mode: "standard" or "online".
    steps: optimiser steps for each image; in the paper 10 for standard, 1 for online.
    copies: number of augmented copies of the image in each step. They are augmented with config.augment,
      which should be the augmentation of the training.
    learning_rate, optimizer, momentum, weight_decay: of the optimiser, with a constant learning rate; its
      state is initialised for each image.
    trainable: which parameters adapt, by the first part of their pytree path or a pattern
      ("encoder/*/kernel"); (): the choice of the method or of the objective.
    threshold: adapt only to images for which the network's certainty of the task, measured on the image
      without augmentation, is below this value; above 1: to all images.
    micro_batches: number of parts that the copies are split into to save memory. It does not change the
      results.
    together: number of images (or streams) at once on a device; 0: as many as suit the platform and the
      network. It does not change the results.
    curve: also record the error after every step.
    corruptions, table, textures, released, examples: see `corrupted.choose_corruptions`. corruptions=() means
      "clean" and the fifteen of the benchmark.
    severities: some of 1 to 5.
  Raises: ValueError for options out of range; in `run`, methods.MissingAbility if the network has no
    classifier or, for objective "own", no task to learn at test time, and ValueError if it has nothing that
    the objective adapts.
  Source: Sun et al. 2020; Gandelsman et al. 2022; of the baselines see `ttt.objectives`.
  """
  check_choice("mode", mode, ("standard", "online"))
  if learning_rate <= 0:
    raise ValueError(
      f"config.tasks.ttt.learning_rate is {learning_rate}; use a positive one, or steps=0 for no adaptation"
    )
  if together < 0:
    raise ValueError(
      f"config.tasks.ttt.together is {together}; use 0 for the default, or a positive number of images"
    )
  chosen = choose_corruptions(
    "ttt",
    corruptions=corruptions,
    severities=severities,
    table=table,
    textures=textures,
    released=released,
    examples=examples,
    clean=True,
  )
  ttt.check_objective(objective, prior=prior, confidence=confidence)
  settings = Settings(
    objective,
    prior,
    confidence,
    mode,
    steps,
    copies,
    learning_rate,
    optimizer,
    momentum,
    weight_decay,
    threshold,
    micro_batches,
    trainable,
    together,
    curve,
  )
  return Task("ttt", functools.partial(_run, settings, chosen), resumes=True)


def _run(
  settings: Settings,
  chosen: Corruptions,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: Key,
  *,
  extract=extract_features,
  progress=silent,
  partial_results: PartialResults = NOTHING_KEPT,
) -> Result:
  """Adapts to the images of every split, then classifies the same images without adaptation."""
  predict = classifier_of(backbone, "ttt").predict
  data = in_own_classes(backbone, data)
  backbone = with_objective(settings, backbone)
  adaptable = backbone.ability(Adaptable, "task 'ttt'", cure=CURE)
  adapt = make_adapt(settings, adaptable, data.augment)
  weights, first = ttt.initial_params(backbone, settings.trainable)
  exact, splits = corrupted_splits(chosen, backbone, pixels_of, data, mesh, key)
  streams = settings.mode == "online"
  together = settings.together or ttt.images_at_once(adapt, first)
  together = min(together, -(-len(splits) // mesh.size)) if streams else together
  program = ttt.compile_adapt(adapt, mesh, together=together, carried=streams)
  work = Work(program, *placement.replicate((weights, first, key), mesh), splits=splits, mesh=mesh)
  protocol = _protocol(settings, exact, adaptable, backbone, data)
  identity = {
    **protocol,
    "weights": digest(backbone),
    "splits": [split[:2] for split in splits],
    "examples": chosen.examples,
    "together": program.size if streams else 0,
    "seed": np.asarray(jax.random.key_data(key)).tolist(),
    "curve": settings.curve,
  }
  rows = AdaptedRows(partial_results, identity)
  total = len(splits) * min(chosen.examples or data.test_size, data.test_size or chosen.examples)
  with Stop() as stop:
    for loss in (adapt_streams if streams else adapt_each)(work, rows):
      progress(rows.count(), total, loss)
      stopped = stop.poll()
      rows.save(now=bool(stopped))
      if stopped:
        raise Stopped(
          f"stopped by {stopped} after {rows.count()} of {total} images; run the same command again to resume"
        )
  _, plain = corrupted_splits(chosen, backbone, predict, data, mesh, key)
  logits = [
    classify(split.backbone, split.batches, data.num_classes, mesh, extract, "ttt").x for split in plain
  ]
  partial_results.clear()
  scalars, details = report(rows, splits, [found.argmax(-1) for found in logits])
  return Result(scalars, {**protocol, **details, "ledger": _ledger(settings, rows, program)})


def with_objective(settings: Settings, backbone: Backbone) -> Backbone:
  """Returns the backbone whose ability Adaptable is the objective of these settings."""
  return ttt.with_objective(
    backbone, settings.objective, prior=settings.prior, confidence=settings.confidence
  )


def make_adapt(settings: Settings, adaptable: Adaptable, augment: Augment | None) -> ttt.Adapt:
  """Returns the inner loop for these settings. Raises ValueError for values out of range."""
  rule = make_rule(
    settings.optimizer,
    learning_rate=settings.learning_rate,
    momentum=settings.momentum,
    weight_decay=settings.weight_decay,
  )
  return ttt.make_adapt(
    adaptable,
    augment or to_float_rows,
    rule,
    steps=settings.steps,
    copies=settings.copies,
    micro_batches=settings.micro_batches,
    threshold=settings.threshold,
    curve=settings.curve,
  )


def make_rule(
  name: Literal["sgd", "nesterov", "adamw"],
  *,
  learning_rate: float,
  momentum: float,
  weight_decay: float,
  **options,
) -> optax.GradientTransformation:
  """Returns the optimiser for the adaptation to one sample, with a constant learning rate; for further
  options see `optim.make_optimizer`.
  """
  return optim.make_optimizer(
    total_steps=1,
    steps_per_epoch=1,
    batch_size=1,
    name=name,
    schedule="constant",
    learning_rate=learning_rate,
    momentum=momentum,
    weight_decay=weight_decay,
    **options,
  ).transform


def to_float_rows(key: Key, batch: Batch) -> Batch:
  """Converts the images to float; the augmentation if the data has none."""
  return {name: to_float(leaf) for name, leaf in batch.items()}


def _protocol(
  settings: Settings, chosen: Corruptions, adaptable: Adaptable, backbone: Backbone, data: TaskData
) -> dict[str, Any]:
  without = ("trainable", "together", "curve")
  return {
    **data.protocol,
    **backbone.protocol,
    **{name: value for name, value in settings._asdict().items() if name not in without},
    "task": "ttt",
    "trainable": list(settings.trainable or adaptable.trainable),
    "severities": list(chosen.severities),
    "corruption_data": origin(chosen),
    "backbone_mode": "evaluation",
  }


def _ledger(settings: Settings, rows: AdaptedRows, program: ttt.Program) -> dict[str, Any]:
  """Returns the cost of the adaptation to one sample."""
  learned, forward = settings.steps * settings.copies, 2 + (settings.steps - 1) * settings.curve
  if settings.objective == "self_training":
    forward += settings.steps  # of the sample without augmentation
  no_gradient = settings.objective == "norm"
  passes = {"forward_and_backward": 0 if no_gradient else learned, "forward": forward + learned * no_gradient}
  return {
    "milliseconds_a_sample": 1000 * rows.seconds / max(rows.timed, 1),
    "samples_at_once": program.size,
    "passes_a_sample": passes,
    "bytes_a_device": program.memory(),
  }
