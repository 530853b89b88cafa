"""The pretext task as a measure: on new images, in evaluation mode, without the padded rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models, tasks
from ssl_jax.abilities import PretextTask
from ssl_jax.core import DataSpec
from ssl_jax.tasks import task as task_types
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


@pytest.mark.parametrize(
  "name, options",
  [
    ("rotation", dict(copies="one")),
    ("joint", dict(copies="one")),
    ("context", dict(tile=4, gap=1, jitter=2, width=16)),
    ("jigsaw", dict(tile=4, gap=1, jitter=2, width=16, permutations=24)),
    ("counting", dict(counts=16)),
    ("colorization", {}),
  ],
)
def test_what_an_image_is_asked_does_not_depend_on_its_place(name, options):
  """Two batches, one and another order. "counting" compares neighbours, so pairs stay together."""
  stride = dict(output_stride=4) if name == "colorization" else {}
  encoder = models.make("resnet10", width=8, stem="small", norm="group", **stride)
  method = methods.make(name, encoder, DataSpec(100, 10, 8), **options)
  images = jax.random.uniform(KEY, (8, 20, 20, 3))
  start = jax.jit(method.init)(KEY, {"image": images})
  examine = jax.jit(functools.partial(method.abilities[PretextTask].evaluate_task, *start[:2]))
  order = jnp.asarray([6, 7, 2, 3, 0, 1, 4, 5])
  expected = examine(images)
  found = examine(images[order])
  halves = [examine(images[:4]), examine(images[4:])]
  for score, values in expected.items():
    np.testing.assert_allclose(found[score], values[order], rtol=1e-3, atol=1e-5, err_msg=score)
    parts = np.concatenate([half[score] for half in halves])
    np.testing.assert_allclose(parts, values, rtol=1e-3, atol=1e-5, err_msg=score)


def clip_records(clips: np.ndarray, numbers: np.ndarray) -> task_types.TestRecords:
  """Test records of clips uint8[N, 5, h, w, 3], of which some belong to one clip."""

  def batches(transform):
    assert transform == "of the training run"
    yield {
      "clip": clips,
      "clip_number": numbers,
      "label": np.full(len(clips), -1, np.int32),
      "index": np.arange(len(clips), dtype=np.int32),
      "valid": np.ones(len(clips), bool),
    }

  transform = lambda: Stub("of the training run")
  return task_types.TestRecords(
    batches, lambda *_: {}, lambda _: {}, lambda: np.zeros(0), (), trained=transform
  )


class Stub(str):
  """Stands for a host transform."""

  elements = {"clip": None}


def test_clips_are_measured_as_the_training_run_delivers_them(dense, make_data, noise, mesh_of):
  clips = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 4, 3), np.uint8)
  numbers = np.array([7, 7, 7, 9, 9, 9], np.int32)
  examine_clips = lambda params, model_state, clips: {"balanced_accuracy": clips.mean((1, 2, 3, 4))}
  task = PretextTask(None, examine_clips, "clip")
  backbone = dense._replace(method=encoder_only(dense.method.encode, {PretextTask: task}))
  data = make_data(noise(8, 0), noise(8, 1), 10, records=clip_records(clips, numbers))
  found = tasks.make("pretext").run(backbone, data, mesh_of(1), KEY)
  values = (clips / 255).mean((1, 2, 3, 4))
  assert found.scalars["balanced_accuracy"] == pytest.approx(values.mean(), abs=1e-6)
  of_clips = values.reshape(2, 3).mean(1)
  error = found.protocol["standard_error"]["balanced_accuracy"]
  assert error == pytest.approx(abs(of_clips[0] - of_clips[1]) / 2, rel=1e-4)
  with pytest.raises(ValueError, match="task is made from 'clip', which config.host .* does not deliver"):
    tasks.make("pretext").run(backbone, data._replace(records=None), mesh_of(1), KEY)


def test_a_network_without_a_task_is_refused(dense, make_data, noise, mesh_of):
  data = make_data(noise(64, 0), noise(64, 1), 10)
  with pytest.raises(
    ValueError,
    match="task 'pretext' needs .* PretextTask, which 'dense' does not have; .*colorization, context",
  ):
    tasks.make("pretext").run(dense, data, mesh_of(1), KEY)
