"""How well a linear classifier predicts the classes from frozen features.

Protocols: MoCo's lincls (He et al. 2020), SimCLR's linear evaluation (Chen et al. 2020, section 2.3 and
appendix B.6), MAE's linear probe (He et al. 2022, appendix A.1). Difference: the published protocols train on
augmented images, as `live=True` does. The default trains on features that are computed once, with one view
per image, which is hundreds of times faster.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.heads import Heads, Recipe, score, train_live, train_on_features
from ssl_jax.tasks.task import (
  Batches,
  Result,
  Task,
  TaskData,
  check_choice,
  check_labels,
  never_trained,
  rank_of_label,
  silent,
)

# Learning rates are per 256 images: the optimiser uses rate * batch_size / 256.
PRESETS = {
  "moco": Recipe(learning_rates=(30.0,), optimizer="sgd", schedule="steps", epochs=100, batch_size=256),
  "simclr": Recipe(
    learning_rates=(0.1,), optimizer="nesterov", schedule="cosine", epochs=90, batch_size=4096
  ),
  "mae": Recipe(
    learning_rates=(0.1,),
    optimizer="lars",
    schedule="cosine",
    warmup_epochs=10,
    epochs=90,
    batch_size=16384,
    normalize="batchnorm",
  ),
}
CHOICES = {
  "optimizer": ("sgd", "nesterov", "lars"),
  "schedule": ("steps", "cosine", "constant"),
  "normalize": ("none", "batchnorm"),
}


class Settings(NamedTuple):
  """The checked options of the task, see `make`."""

  preset: str
  recipe: Recipe  # with the learning rates that the optimiser uses
  rates: tuple[float, ...]  # the learning rates per 256 images
  live: bool
  held_out: float
  layer: str
  grid: int
  device_bytes: int

  @property
  def several(self) -> bool:
    """Whether a learning rate must be chosen."""
    return len(self.rates) > 1


class Scores(NamedTuple):
  """The accuracies of each head; nan for a head whose weights are not finite."""

  top1: np.ndarray  # f64[L]
  top5: np.ndarray  # f64[L]
  choices: np.ndarray  # i32[L, N]: predicted classes


def make(
  *,
  preset: str = "moco",
  learning_rates: tuple[float, ...] = (),
  batch_size: int = 0,
  epochs: int = 0,
  optimizer: str = "",
  schedule: str = "",
  warmup_epochs: int = -1,
  normalize: str = "",
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  live: bool = False,
  held_out: float = 0.1,
  layer: str = "",
  grid: int = 1,
  device_bytes: int = 2 << 30,
) -> Task:
  """Linear probe. An option that is left at its default takes the value of the preset.

  Several learning rates are trained at once, and one of them is chosen on a held-out part of the TRAINING set
  (`data.validation` if given, otherwise the fraction `held_out` of the training features). The test images
  choose nothing. The result reports both accuracies of every learning rate.

  Args:
    preset: moco (lr 30, x0.1 at 60% and 80% of 100 epochs, batch 256; features small and not normalised),
      simclr (Nesterov, lr 0.1, cosine, 90 epochs, batch 4096), mae (LARS, warm-up, BatchNorm without scale
      and shift).
    learning_rates: per 256 images: the optimiser uses rate * batch_size / 256.
    optimizer: sgd, nesterov or lars.
    schedule: steps, cosine or constant; `epochs` stretches it.
    normalize: none or batchnorm.
    live: encode augmented images at every step instead of using features that are computed once.
    held_out: fraction of the training features for the choice of a learning rate, in (0, 1).
    layer, grid: as in `features.extract`.
    device_bytes: features up to this size are replicated on every device, larger ones are sent in chunks.
  Raises: ValueError for unknown names and values out of range; in `run`: ValueError if there are fewer images
    than one batch, several rates are trained live without `data.validation`, or every head diverged;
    RuntimeError if the backbone has changed.
  """
  check_choice("preset", preset, PRESETS)
  if not 0 < held_out < 1:
    raise ValueError(f"held_out={held_out} must lie between 0 and 1; 0.1 is a tenth of the training set")
  base = PRESETS[preset]
  rates = tuple(map(float, learning_rates or base.learning_rates))
  size = batch_size or base.batch_size
  recipe = Recipe(
    learning_rates=tuple(rate * size / 256 for rate in rates),
    batch_size=size,
    epochs=epochs or base.epochs,
    optimizer=optimizer or base.optimizer,
    schedule=schedule or base.schedule,
    momentum=momentum,
    weight_decay=weight_decay,
    warmup_epochs=base.warmup_epochs if warmup_epochs < 0 else warmup_epochs,
    normalize=normalize or base.normalize,
  )
  settings = Settings(preset, _checked(recipe), rates, live, held_out, layer, grid, device_bytes)
  return Task("linear_probe", functools.partial(_run, settings))


def _run(
  settings: Settings,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: jax.Array,
  *,
  extract=extract_features,
  progress=silent,
) -> Result:
  """Trains the heads, chooses one and measures it on the test images; the backbone must not change."""
  if settings.live and (data.train_steps is None or (data.validation is None and settings.several)):
    raise ValueError(
      "live=True needs data.train_steps, and data.validation to choose among "
      f"learning_rates={settings.rates}; give both, or one rate, or live=False"
    )

  def read(batches: Batches, split: str) -> Features:
    features = extract(backbone, batches, mesh, layer=settings.layer, grid=settings.grid)
    check_labels(features.y, data.num_classes, split)
    return features

  before = digest(backbone)
  test = read(data.test, "test")
  validation = read(data.validation, "validation") if data.validation and settings.several else None
  if settings.live:
    heads, losses = _train_live(settings, backbone, data, mesh, key, progress)
    train_rows, unseen = data.train_size, {}
  else:
    train = read(data.train, "training")
    if validation is None and settings.several:
      train, validation = hold_out(train, settings.held_out, key)
    heads, losses = _train_on_features(settings, train, data.num_classes, mesh, key, progress)
    train_rows, unseen = len(train.x), never_trained(train.y, test.y, data.class_names)
  after = digest(backbone)
  if before != after:
    raise RuntimeError(f"the linear probe changed the backbone it measures: digest {before} became {after}")
  on_test = evaluate(heads, test, mesh)
  on_validation = None if validation is None else evaluate(heads, validation, mesh)
  best = choose(on_validation or on_test, settings.rates)
  scalars = {
    "top1": float(on_test.top1[best]),
    "top5": float(on_test.top5[best]),
    "train_loss": float(losses[best]),
  }
  protocol = {
    **data.protocol,
    **backbone.protocol,
    **unseen,
    **_choice_protocol(settings, best, on_test, on_validation),
    **_data_protocol(settings, train_rows, validation, test),
    "backbone_sha256": after,
    "key": np.asarray(jax.random.key_data(key)).tolist(),
    "backbone_mode": "evaluation (running BatchNorm statistics), frozen",
  }
  predictions = {"label": test.y, "prediction": on_test.choices[best], "index": test.index}
  return Result(scalars, protocol, predictions)


def _train_live(
  settings: Settings, backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, progress
) -> tuple[Heads, np.ndarray]:
  """Trains the heads on augmented images, which are encoded at every step."""
  return train_live(
    backbone,
    data,
    recipe=settings.recipe,
    mesh=mesh,
    key=key,
    layer=settings.layer,
    grid=settings.grid,
    progress=progress,
  )


def _train_on_features(
  settings: Settings, train: Features, num_classes: int, mesh: Mesh, key: jax.Array, progress
) -> tuple[Heads, np.ndarray]:
  """Trains the heads on features that have been computed once."""
  return train_on_features(
    train.x,
    train.y,
    num_classes=num_classes,
    recipe=settings.recipe,
    mesh=mesh,
    key=key,
    device_bytes=settings.device_bytes,
    progress=progress,
  )


def _checked(recipe: Recipe) -> Recipe:
  """Returns the recipe. Raises ValueError for unknown names and values out of range."""
  for name, known in CHOICES.items():
    check_choice(name, getattr(recipe, name), known)
  if min(recipe.learning_rates) <= 0 or min(recipe.batch_size, recipe.epochs) < 1:
    raise ValueError(
      f"learning_rates={recipe.learning_rates}, batch_size={recipe.batch_size} and "
      f"epochs={recipe.epochs} must be positive"
    )
  if recipe.warmup_epochs >= recipe.epochs:
    raise ValueError(
      f"warmup_epochs={recipe.warmup_epochs} must be less than epochs={recipe.epochs}; use fewer of them"
    )
  return recipe


def hold_out(features: Features, fraction: float, key: jax.Array) -> tuple[Features, Features]:
  """Splits the rows at random into (the remaining rows, the given fraction of them); the key determines the
  split.
  """
  seed = int(jax.random.bits(jax.random.fold_in(key, 1), dtype=np.uint32))
  order = np.random.default_rng(seed).permutation(len(features.x))
  count = max(1, round(fraction * len(order)))
  rest, held = (Features(*(leaf[rows] for leaf in features)) for rows in (order[count:], order[:count]))
  return rest, held


def evaluate(heads: Heads, features: Features, mesh: Mesh) -> Scores:
  """Returns the scores of every head on the features; `choices` has the order of their rows."""
  ranks, choices = [], []
  for block, logits in score(heads, features.x, mesh):
    ranks.append(rank_of_label(logits, features.y[block]))
    choices.append(logits.argmax(axis=-1).astype(np.int32))
  ranks = np.concatenate(ranks, axis=1)
  finite = np.isfinite(np.asarray(heads.params["kernel"])).all(axis=(1, 2))
  top1, top5 = (np.where(finite, (ranks < k).mean(axis=1), np.nan) for k in (1, 5))
  return Scores(top1, top5, np.concatenate(choices, axis=1))


def choose(scores: Scores, rates: tuple[float, ...]) -> int:
  """Returns the head with the highest top-1 accuracy; ties go to the smallest learning rate.

  Raises: ValueError if all heads diverged.
  """
  if np.isnan(scores.top1).all():
    raise ValueError(
      f"the linear probe diverged at learning_rates={rates}; use smaller ones, or normalize='batchnorm'"
    )
  return min(range(len(rates)), key=lambda head: (-np.nan_to_num(scores.top1[head], nan=-1.0), rates[head]))


def _choice_protocol(settings: Settings, best: int, on_test: Scores, on_validation: Scores | None) -> dict:
  """Returns the recipe and the accuracies of every learning rate."""
  number = lambda value: None if math.isnan(value) else float(value)  # noqa: E731
  recipe, rates = settings.recipe, settings.rates
  sweep = [
    {
      "learning_rate": rate,
      "test_top1": number(on_test.top1[i]),
      "validation_top1": number(on_validation.top1[i]) if on_validation else None,
    }
    for i, rate in enumerate(rates)
  ]
  return {
    **{name: value for name, value in dataclasses.asdict(recipe).items() if name != "learning_rates"},
    "learning_rate": rates[best],
    "learning_rate_used": recipe.learning_rates[best],
    "learning_rate_rule": "learning_rate * batch_size / 256",
    "sweep": sweep,
    "chosen_by": "top-1 on a held-out part of the training set" if on_validation else "one rate, no choice",
    "init": "kernel N(0, 0.01), bias 0",
    "loss": "mean softmax cross-entropy",
  }


def _data_protocol(settings: Settings, train_rows: int, validation: Features | None, test: Features) -> dict:
  """Returns the options of the features and the number of rows of each split."""
  return {
    "task": "linear_probe",
    "preset": settings.preset,
    "live": settings.live,
    "layer": settings.layer or "encode",
    "grid": settings.grid,
    "train_rows": train_rows,
    "validation_rows": 0 if validation is None else len(validation.x),
    "test_rows": len(test.x),
    "dimensions": test.x.shape[1],
  }
