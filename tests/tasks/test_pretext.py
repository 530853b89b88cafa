"""The pretext task as a measure: on new images, in evaluation mode, without the padded rows."""

import jax
import jax.numpy as jnp
import pytest

from ssl_jax import tasks
from ssl_jax.abilities import PretextTask
from ssl_jax.tasks.backbone import encoder_only

KEY = jax.random.key(0)


def examine(params, model_state, images):
  grey = images.mean((1, 2, 3))
  return {"loss": grey, "accuracy": (grey > 0.5).astype(jnp.float32)}


def test_scores_are_means_over_the_images_that_count(dense, make_data, noise, mesh_of):
  images, labels = noise(100, 0)  # batches of 64: the second has 28 rows that do not count
  data = make_data((images, labels), (images, labels), 10)
  backbone = dense._replace(
    method=encoder_only(dense.method.encode, {PretextTask: PretextTask(None, examine)})
  )
  found = tasks.make("pretext").run(backbone, data, mesh_of(8), KEY)
  grey = (images / 255).mean((1, 2, 3))
  assert list(found.scalars) == ["accuracy", "loss"]  # the main score first
  assert found.scalars == pytest.approx({"accuracy": (grey > 0.5).mean(), "loss": grey.mean()}, abs=1e-6)
  assert found.protocol["test_rows"] == 100 and found.protocol["backbone"] == "dense"
  again = tasks.make("pretext").run(backbone, data, mesh_of(1), KEY)
  assert again.scalars == pytest.approx(found.scalars, abs=1e-6)


def test_a_network_without_a_task_is_refused(dense, make_data, noise, mesh_of):
  data = make_data(noise(64, 0), noise(64, 1), 10)
  with pytest.raises(
    ValueError,
    match="task 'pretext' needs .* PretextTask, which 'dense' does not have; .*colorization, context",
  ):
    tasks.make("pretext").run(dense, data, mesh_of(1), KEY)
