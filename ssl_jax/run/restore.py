"""Restores the network of a run from its checkpoint, to evaluate it, plot it or start another run from it."""

from __future__ import annotations

import functools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Classifier, Pyramid, Segmenter
from ssl_jax.config.named_functions import short_name
from ssl_jax.config.recipe_builder import completed
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec, Method, TrainState, Weights
from ssl_jax.run.array_batches import Function, apply_in_batches
from ssl_jax.run.assembly import Assembly, abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.tasks.backbone import Backbone

ENCODER_ABILITIES = (Pyramid,)  # abilities that need no other part than the encoder
ATTEMPTS = 100  # to read the last checkpoint of a run that goes on; each needs that the run has saved another

DELETION = 2.0  # seconds that the deletion of a checkpoint may take


class CheckpointMissing(ValueError):
  """The checkpoint does not exist, or a run that is being trained has deleted it while it was read."""


class Restored(NamedTuple):
  """The restored network of a run, and the same network before training.

  `encode`, `pyramid` and `predict` take any number of images of any size, as NumPy, jax or torch arrays of
  uint8 or floats from 0 to 1, or as a sequence of such images or of Pillow's; see
  `array_batches.apply_in_batches`. They compile one program for each `batch_size`, and return NumPy arrays.
  Inside of `jax.jit`, use the pure functions of `method` with `backbone.weights`.
  """

  backbone: Backbone
  untrained: Callable[[], Backbone]
  config: TrainConfig
  step: int
  data: DataSpec  # the data that it was trained on
  parts: tuple[str, ...]  # the parts of the network that the checkpoint holds; (): all
  mesh: Mesh  # the devices that hold the weights

  @property
  def method(self) -> Method:
    """The method that the network was trained with."""
    return self.backbone.method

  @property
  def class_names(self) -> tuple[str, ...]:
    """The classes of the images that it was trained on; () if they are unknown."""
    return self.backbone.class_names

  def encode(self, images: Any, *, batch_size: int = 32, size: int = 0) -> np.ndarray:
    """The representation f32[N, D] of images.

    Args:
      images: see the class.
      batch_size: images at once; fewer are padded, so use 1 for single images.
      size: side in pixels of the images for the network; 0: that of the training views.
    Raises: ValueError for images of another form.
    """
    return self._apply(self.method.encode, images, batch_size, size)

  def pyramid(self, images: Any, *, batch_size: int = 32, size: int = 0) -> dict[str, np.ndarray]:
    """The feature maps {layer: f32[N, h, w, C]} of images; arguments and errors as `encode`.

    Raises: methods.MissingAbility for a network without layers.
    """
    return self._apply(self.backbone.ability(Pyramid, "pyramid").maps, images, batch_size, size)

  def predict(self, images: Any, *, batch_size: int = 32, size: int = 0) -> np.ndarray:
    """The probabilities f32[N, classes] of images, or of each of their pixels f32[N, size, size, classes].

    Arguments and errors as `encode`. A segmenter sees the centre square; `ssl_jax.predict` gives it whole
    images, and takes detectors too.

    Raises: methods.MissingAbility for a network that is neither a classifier nor a segmenter.
    """
    kind = Segmenter if Segmenter in self.method.abilities else Classifier
    cure = "fine-tune it first (configs/transfer/finetune.py); ssl_jax.predict takes detectors too"
    logits = self.backbone.ability(kind, "predict", cure).predict
    return self._apply(probabilities(logits), images, batch_size, size)

  def _apply(self, function: Function, images: Any, batch_size: int, size: int) -> Any:
    return apply_in_batches(
      function,
      self.backbone.weights,
      images,
      size=size or self.config.augment["size"],
      interpolation=self.config.data.interpolation,
      mesh=self.mesh,
      batch_size=batch_size,
    )


@functools.lru_cache(maxsize=16)  # equal functions, so that they are compiled once
def probabilities(logits: Function) -> Function:
  """Returns the function (params, model_state, images) -> the softmax of the logits, f32."""
  return lambda *args: jax.nn.softmax(logits(*args).astype(jnp.float32))


def restore(
  workdir: str | pathlib.Path, mesh: Mesh | None = None, *, step: int = 0, weights: str = "params"
) -> Restored:
  """Restores the `model` item of a run's checkpoint, on any number of devices.

  Options that the run's config lacks, because they were added later, get their default values. The checkpoint
  is checked against its digests. The run may be being trained: if it deletes the last checkpoint before this
  is read, the then last one is restored.

  Args:
    mesh: the devices on which the weights are replicated; None: all devices.
    step: which checkpoint; 0: the last.
    weights: "params", or "ema" for the moving average.
  Raises: ValueError if the checkpoint does not exist, naming those that do, is damaged, or does not fit the
    config.
  """
  workdir = pathlib.Path(workdir).expanduser()
  if not workdir.is_dir():
    raise ValueError(
      f"{workdir} is not the folder of a run; train one first: ssl-jax train --config=... --workdir={workdir}"
    )
  with Checkpoints(workdir) as checkpoints:
    mesh = mesh or parallel.make_mesh()
    build = functools.lru_cache(1)(functools.partial(_build, mesh))
    for _ in range(ATTEMPTS):
      chosen = _choose_step(checkpoints, workdir, step)
      try:
        return _restore(checkpoints, build, mesh, chosen, weights)
      except Exception as error:
        if not _deleted(checkpoints, chosen):
          raise
        if step or jax.process_count() > 1:  # the other processes may have read it
          raise _missing(checkpoints, workdir, chosen) from error
    raise CheckpointMissing(
      f"the run in {workdir} deletes its checkpoints faster than they can be read ({ATTEMPTS} attempts); "
      "raise its config.checkpoint.keep or config.checkpoint.every_steps, or wait for its end"
    )


def _deleted(checkpoints: Checkpoints, step: int) -> bool:
  """Whether the run that saves the checkpoints is deleting this one, file by file, after later ones."""
  end = time.monotonic() + DELETION
  while step in (steps := checkpoints.steps()):
    if steps[-1] == step or checkpoints.is_intact(step) or time.monotonic() > end:
      return False
    time.sleep(0.02)
  return True


def _choose_step(checkpoints: Checkpoints, workdir: str | pathlib.Path, step: int) -> int:
  """Chooses the checkpoint to restore. Raises ValueError if it does not exist or is damaged."""
  steps = checkpoints.steps()
  if not steps:
    raise ValueError(
      f"{workdir} holds no checkpoint; train one first: ssl-jax train --config=... --workdir={workdir}"
    )
  if step and step not in steps:
    raise CheckpointMissing(f"{workdir} holds no checkpoint of step {step}; it has {steps}")
  if step:
    problem = checkpoints.find_damage(step)
    if problem and _deleted(checkpoints, step):
      raise _missing(checkpoints, workdir, step)
    if problem:
      raise ValueError(
        f"the checkpoint of step {step} of {workdir} is damaged: {problem}. Choose another step of {steps}"
      )
    return step
  last, problems = checkpoints.latest()
  if problems:
    print("\n".join(problems))
  if not last:
    raise ValueError(f"{workdir} holds no intact checkpoint")
  return last


def _missing(checkpoints: Checkpoints, workdir: str | pathlib.Path, step: int) -> CheckpointMissing:
  return CheckpointMissing(
    f"the run deleted the checkpoint of step {step} of {workdir} while it was read; it has "
    f"{checkpoints.steps()} now. Choose a later one, or raise config.checkpoint.keep of the run"
  )


class _Built(NamedTuple):
  """The network of a run, without its weights."""

  config: TrainConfig
  parts: Assembly
  abstract: Weights
  init: Callable[[], TrainState]
  held: tuple[str, ...]  # the parts of the network that the checkpoint holds; (): all
  class_names: tuple[str, ...]  # of its training images; (): unknown, as in checkpoints of earlier versions


def _build(mesh: Mesh, stored: str) -> _Built:
  """Builds the network of the `config` item of a checkpoint, given as JSON."""
  item = json.loads(stored)
  config = check(TrainConfig, completed(item["config"]))
  class_names = tuple(item["data"].pop("class_names", ()))
  parts = assemble(config, DataSpec(batch_size=config.batch_size, **item["data"]))
  abstract, init = abstract_state(parts, config, mesh)
  held = tuple(item.get("parts", ()))
  weights = only(Weights(abstract.params, abstract.model_state), held)
  return _Built(config, parts, weights, init, held, class_names)


def _restore(
  checkpoints: Checkpoints, build: Callable[[str], _Built], mesh: Mesh, step: int, weights: str
) -> Restored:
  config, parts, abstract, init, held, class_names = build(json.dumps(checkpoints.config(step)))
  found = checkpoints.restore_weights(step, abstract, which=weights)
  protocol = {"method": config.method["name"], "encoder": dict(config.encoder), "weights": weights}
  method = parts.method
  if held:  # imported without its head or decoder
    kept = {kind: what for kind, what in method.abilities.items() if kind in ENCODER_ABILITIES}
    method = method._replace(abilities=kept)

  def untrained() -> Backbone:
    fresh = init()
    first = Weights(fresh.params, fresh.model_state)
    return Backbone(first, method, {**protocol, "backbone": "untrained", "step": 0}, class_names)

  described = {**protocol, "backbone": short_name(config.method["name"]), "step": step}
  backbone = Backbone(found, method, described, class_names)
  return Restored(backbone, untrained, config, step, parts.data, held, mesh)


def only(weights: Weights, parts: Sequence[str] | None) -> Weights:
  """Selects the parameters and state of the named parts of a network; of all parts if none is named."""
  return Weights(*({name: tree[name] for name in parts} for tree in weights)) if parts else weights
