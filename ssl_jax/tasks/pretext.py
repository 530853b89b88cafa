"""How well a network solves the pretext task that it was trained on, measured on new images."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import PretextTask
from ssl_jax.metrics import standard_error
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Batches, Result, Task, TaskData, silent

MAIN = ("balanced_accuracy", "accuracy")  # the first of them that a task has is its main score


def make() -> Task:
  """Loss and scores of the method's own pretext task on the test images, in evaluation mode.

  The rotation, patch or permutation of each image is drawn from its pixels, so the results do not depend on
  batches, devices or order; of "counting" see there. The untrained network is the baseline. Tasks on clips
  get them from the host transform of the training run. The protocol has the standard error of every score;
  several test records of one clip count as one cluster.

  Raises, in `run`: methods.MissingAbility if the method has no pretext task; ValueError if the test records
    lack what it is made from.
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
    task = backbone.ability(PretextTask, "task 'pretext'")
    batches = _batches(task, data)
    names = sorted(
      jax.eval_shape(task.evaluate_task, *backbone.weights, _images(batches)),
      key=lambda name: ((*MAIN, name).index(name), name),
    )
    scores = extract(backbone.reading(_stacked(task.evaluate_task, tuple(names))), batches, mesh)
    means = dict(zip(names, scores.x.mean(0, dtype=np.float64).tolist(), strict=True))
    groups = scores.index if task.element == "image" else scores.y
    errors = {name: standard_error(column, groups) for name, column in zip(names, scores.x.T)}
    protocol = {
      **data.protocol,
      **backbone.protocol,
      "task": "pretext",
      "backbone_mode": "evaluation",
      "test_rows": len(scores.x),
      "standard_error": errors,
    }
    return Result(means, protocol)

  return Task("pretext", run)


def _batches(task: PretextTask, data: TaskData) -> Batches:
  """Batches whose "image" is what the task is made from, and, for clips, whose "label" numbers the clip."""
  if task.element == "image":
    return data.test
  records, transform = data.records, data.records and data.records.trained and data.records.trained()
  if records is None or transform is None or task.element not in transform.elements:
    raise ValueError(
      f"task 'pretext': the method's task is made from {task.element!r}, which config.host of the training "
      "run does not deliver"
    )

  def batches():
    for batch in records.batches(transform):
      number = batch.get("clip_number", batch["index"])
      yield {**batch, "image": batch[task.element], "label": number}

  return batches


def _images(batches: Batches) -> jax.ShapeDtypeStruct:
  first = next(iter(batches()))["image"]
  return jax.ShapeDtypeStruct(first.shape, jnp.float32)


@functools.lru_cache(maxsize=None)  # trained and untrained networks share one compiled program
def _stacked(evaluate_task, names: tuple[str, ...]):
  """Returns a function that gives the scores as the columns of f32[B, K], the layout of features."""

  def columns(params, model_state, images):
    scores = evaluate_task(params, model_state, images)
    return jnp.stack([scores[name] for name in names], axis=1)

  return columns
