"""One of two processes of one measurement: `two_processes.py PORT RANK OUTPUT`, started by its test."""

import json
import os
import pathlib
import sys

if __name__ == "__main__":  # before jax starts; the test imports this file for its one-process answer
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
  os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType  # noqa: E402

from ssl_jax import tasks  # noqa: E402
from ssl_jax.abilities import Adaptable, Classifier  # noqa: E402
from ssl_jax.core import Weights  # noqa: E402
from ssl_jax.tasks.backbone import Backbone, encoder_only  # noqa: E402
from ssl_jax.tasks.pixel_baseline import strongest_pixels  # noqa: E402
from ssl_jax.tasks.task import TaskData  # noqa: E402
from ssl_jax.view import knn_atlas  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.tasks import boxed_images  # noqa: E402
from tests.tasks.masked_images import by_colour, data_of, painted  # noqa: E402


def toy(count, seed):
  centres, draw = np.random.default_rng(0).uniform(60, 195, (3, 4, 4, 3)), np.random.default_rng(seed)
  labels = draw.integers(0, 3, count).astype(np.int32)
  images = centres[labels] + 110 * draw.standard_normal((count, 4, 4, 3))
  return images.clip(0, 255).astype(np.uint8), labels


def share(images, labels, size=16):
  """Every second row. Both processes yield the same number of batches; padded rows are not valid."""
  rank, processes = jax.process_index(), jax.process_count()

  def batches():
    for start in range(0, len(images), size * processes):
      rows = np.arange(start, start + size * processes)[rank::processes]
      mask = rows < len(images)
      rows = np.where(mask, rows, 0)
      yield {"image": images[rows], "label": labels[rows], "valid": mask, "index": rows}

  return batches


def learner() -> Backbone:
  """A matrix whose first three outputs are the logits; it adapts by making the other outputs small."""
  weight = np.random.default_rng(3).standard_normal((48, 6)).astype(np.float32) / 7

  def outputs(params, model_state, images):
    return (images - 0.5).reshape(len(images), -1) @ params["weight"]

  def predict(params, model_state, images):
    return outputs(params, model_state, images)[:, :3]

  def loss(params, model_state, images):
    return jnp.square(outputs(params, model_state, images)[:, 3:]).mean(1)

  adaptable = Adaptable(
    make_task=lambda key, batch: batch["image"] + 0.1 * jax.random.normal(key, batch["image"].shape),
    loss=loss,
    predict=lambda params, model_state, batch: predict(params, model_state, batch["image"]),
    trainable=("weight",),
  )
  method = encoder_only(predict, {Classifier: Classifier(predict), Adaptable: adaptable})
  return Backbone(Weights({"weight": weight}, {}), method, {"backbone": "matrix"})


def measure():
  """Runs all tasks on all devices of all processes."""
  mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
  train, test = toy(101, 0), toy(61, 1)

  def train_steps(size, start, stop, seed):
    rank, processes = jax.process_index(), jax.process_count()
    for step in range(start, stop):
      rows = np.random.default_rng((seed, step)).permutation(101)[:size]
      rows = np.split(rows, processes)[rank]
      yield {"image": train[0][rows], "label": train[1][rows]}

  data = TaskData(
    share(*train), share(*test), 3, validation=share(*toy(40, 2)), train_steps=train_steps, train_size=101
  )
  backbone, found = strongest_pixels(data, mesh), {}
  probe = {"learning_rates": (5.0, 50.0), "batch_size": 16, "epochs": 3}
  for name, options in (
    ("knn", {"k": 5, "also": (20,)}),
    ("linear_probe", {**probe, "device_bytes": 0}),
    ("linear_probe", {**probe, "live": True}),
    ("low_shot", {"shots": 5, "draws": 2}),
  ):
    result = tasks.make(name, **options).run(backbone, data, mesh, jax.random.key(0))
    predicted = np.asarray(result.predictions.get("prediction", ()))
    found[f"{name} {options}"] = {**result.scalars, "predictions": predicted.tolist()}
  for mode in ("standard", "online"):
    task = tasks.make(
      "ttt", mode=mode, steps=2, copies=2, learning_rate=0.1, corruptions=("clean",), examples=50
    )
    result = task.run(learner(), data, mesh, jax.random.key(0))
    found[mode] = {**result.scalars, "loss": result.protocol["losses"]["clean"]["0"][1], "predictions": []}
  task = tasks.make("segmentation", window=8, stride=5)
  result = task.run(by_colour(), data_of(painted(13, 0)), mesh, jax.random.key(0))
  arrays = {name: leaf.tolist() for name, leaf in result.predictions.items()}
  found["segmentation"] = {**result.scalars, "top1": result.scalars["miou"], "predictions": arrays}
  boxes = boxed_images.data_of(boxed_images.drawn(11, 0))
  result = tasks.make("detection").run(boxed_images.by_colour(moved=0.1), boxes, mesh, jax.random.key(0))
  found["detection"] = {**result.scalars, "top1": result.scalars["coco_box_ap"], "predictions": []}
  shown = knn_atlas.images_at(data.train, np.array([[7, 100], [0, 7]]))
  found["images"] = bool((shown == train[0][[[7, 100], [0, 7]]]).all())
  return found


if __name__ == "__main__":
  port, rank, output = sys.argv[1:]
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
  assert jax.device_count() == 4
  pathlib.Path(output).write_text(json.dumps(measure()))
