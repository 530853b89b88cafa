"""How well a network does the task it was trained on, on images it has not seen."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, silent


def make() -> Task:
  """Loss and scores of the method's own pretext task on the test images, in evaluation mode.

  Which turn, patch or permutation an image is asked for is drawn once: the figures are deterministic. The untrained network is
  the baseline.
  Raises, in `run`: ValueError if the method sets no task.
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
    if backbone.examine is None:
      raise ValueError(
        f"task 'pretext' needs a method that sets one, such as rotation or jigsaw, which "
        f"{backbone.protocol.get('backbone', 'this backbone')!r} does not; use the tasks knn or linear_probe"
      )
    names = sorted(
      jax.eval_shape(backbone.examine, backbone.params, backbone.model_state, _images(data)),
      key=lambda name: (name != "accuracy", name),
    )  # the headline first
    scores = extract(backbone._replace(encode=_stacked(backbone.examine, tuple(names))), data.test, mesh)
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


@functools.lru_cache(maxsize=None)  # one function for a network trained and untrained: they share a compile
def _stacked(examine, names: tuple[str, ...]):
  """Scores as the columns of f32[B, K], which is what features look like."""
  return lambda params, model_state, images: jnp.stack(
    [examine(params, model_state, images)[name] for name in names], axis=1
  )
