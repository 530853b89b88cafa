"""Restores the network of a run from its checkpoint, to evaluate it, plot it or start another run from it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Pyramid
from ssl_jax.config.recipe_builder import completed
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec, Method, Weights
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.tasks.backbone import Backbone

ENCODER_ABILITIES = (Pyramid,)  # abilities that need no other part than the encoder


class Restored(NamedTuple):
  """The restored network of a run, and the same network before training."""

  backbone: Backbone
  untrained: Callable[[], Backbone]
  config: TrainConfig
  step: int
  data: DataSpec  # the data that it was trained on
  parts: tuple[str, ...]  # the parts of the network that the checkpoint holds; (): all

  @property
  def method(self) -> Method:
    """The method that the network was trained with."""
    return self.backbone.method


def restore(
  workdir: str | pathlib.Path, mesh: Mesh | None = None, *, step: int = 0, weights: str = "params"
) -> Restored:
  """Restores the `model` item of a run's checkpoint, on any number of devices.

  Options that the run's config lacks, because they were added later, get their default values.

  Args:
    mesh: the devices on which the weights are replicated; None: all devices.
    step: which checkpoint; 0: the last.
    weights: "params", or "ema" for the moving average.
  Raises: ValueError if the checkpoint does not exist, naming those that do, or does not fit the config.
  """
  workdir = pathlib.Path(workdir).expanduser()
  if not workdir.is_dir():
    raise ValueError(
      f"{workdir} is not the folder of a run; train one first: ssl-jax train --config=... --workdir={workdir}"
    )
  with Checkpoints(workdir) as checkpoints:
    step = _choose_step(checkpoints, workdir, step)
    return _restore(checkpoints, mesh or parallel.make_mesh(), step, weights)


def _choose_step(checkpoints: Checkpoints, workdir: str | pathlib.Path, step: int) -> int:
  """Chooses the checkpoint to restore. Raises ValueError if it does not exist or none is intact."""
  steps = checkpoints.steps()
  if not steps:
    raise ValueError(
      f"{workdir} holds no checkpoint; train one first: ssl-jax train --config=... --workdir={workdir}"
    )
  if step and step not in steps:
    raise ValueError(f"{workdir} holds no checkpoint of step {step}; it has {steps}")
  last, problems = checkpoints.latest()
  if problems and step in (0, *(s for s in steps if s > last)):
    print("\n".join(problems))
  if not (step or last):
    raise ValueError(f"{workdir} holds no intact checkpoint")
  return step or last


def _restore(checkpoints: Checkpoints, mesh: Mesh, step: int, weights: str) -> Restored:
  stored = checkpoints.config(step)
  config = check(TrainConfig, completed(stored["config"]))
  class_names = tuple(stored["data"].pop("class_names", ()))  # checkpoints of earlier versions have none
  data = DataSpec(batch_size=config.batch_size, **stored["data"])
  parts = assemble(config, data)
  abstract, init = abstract_state(parts, config, mesh)
  held = only(Weights(abstract.params, abstract.model_state), stored.get("parts"))
  found = checkpoints.restore_weights(step, held, which=weights)
  protocol = {"method": config.method["name"], "encoder": dict(config.encoder), "weights": weights}
  method = parts.method
  if stored.get("parts"):  # imported without its head or decoder
    kept = {kind: what for kind, what in method.abilities.items() if kind in ENCODER_ABILITIES}
    method = method._replace(abilities=kept)

  def untrained() -> Backbone:
    fresh = init()
    first = Weights(fresh.params, fresh.model_state)
    return Backbone(first, method, {**protocol, "backbone": "untrained", "step": 0}, class_names)

  described = {**protocol, "backbone": config.method["name"], "step": step}
  backbone = Backbone(found, method, described, class_names)
  return Restored(backbone, untrained, config, step, parts.data, tuple(stored.get("parts", ())))


def only(weights: Weights, parts: Sequence[str] | None) -> Weights:
  """Selects the parameters and state of the named parts of a network; of all parts if none is named."""
  return Weights(*({name: tree[name] for name in parts} for tree in weights)) if parts else weights
