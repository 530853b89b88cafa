"""How well a network solves the pretext task that it was trained on, measured on new images."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import PretextTask
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, silent


def make() -> Task:
  """Loss and scores of the method's own pretext task on the test images, in evaluation mode.

  The rotation, patch or permutation of each image is drawn from its pixels, so the results do not depend on
  batches, devices or order; of "counting" see there. The untrained network is the baseline.
  Raises, in `run`: methods.MissingAbility if the method has no pretext task.
  """

  def run(
    backbone: Backbone,
    data: TaskData,
    mesh: Mesh,
    key: jax.Array,
    *,
    extract=extract_features,
    progress=silent,
  ) -> Result:
    evaluate_task = backbone.ability(PretextTask, "task 'pretext'").evaluate_task
    names = sorted(
      jax.eval_shape(evaluate_task, *backbone.weights, _images(data)),
      key=lambda name: (name != "accuracy", name),  # the main score first
    )
    scores = extract(backbone.reading(_stacked(evaluate_task, tuple(names))), data.test, mesh)
    means = dict(zip(names, scores.x.mean(0, dtype=np.float64).tolist(), strict=True))
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "pretext",
      "backbone_mode": "evaluation",
      "test_rows": len(scores.x),
    }
    return Result(means, protocol)

  return Task("pretext", run)


def _images(data: TaskData) -> jax.ShapeDtypeStruct:
  first = next(iter(data.test()))["image"]
  return jax.ShapeDtypeStruct(first.shape, jnp.float32)


@functools.lru_cache(maxsize=None)  # trained and untrained networks share one compiled program
def _stacked(evaluate_task, names: tuple[str, ...]):
  """Returns a function that gives the scores as the columns of f32[B, K], the layout of features."""

  def columns(params, model_state, images):
    scores = evaluate_task(params, model_state, images)
    return jnp.stack([scores[name] for name in names], axis=1)

  return columns
