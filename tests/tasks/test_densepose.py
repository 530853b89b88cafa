"""The task densepose: a tiny network learns figures, and its score rises; what it refuses; its picture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host, sources
from ssl_jax.data.elements import host_batch
from ssl_jax.tasks import densepose
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.task import TaskData, TestRecords
from tests import made_people
from tests.made_people import Pose

SIDE = 64
FIGURES = [
  [Pose((32.0, 34.0), 54.0, arms=(0.3, 0.9), legs=(0.1, 0.35))],
  [Pose((30.0, 33.0), 52.0, arms=(1.1, 0.4), legs=(0.3, 0.1))],
]
TRANSFORM = host.image_densepose(host.Frame(SIDE), max_boxes=2, max_points=64, segment_size=56)
TINY = dict(
  channels=16,
  hidden=32,
  anchors=64,
  rois=16,
  before=(64, 64),
  proposals=(32, 16),
  detections=3,
  dense_channels=16,
  dense_width=32,
  dense_layers=2,
  dense_rois=3,
)


@functools.cache
def method():
  spec = DataSpec(100, 1, len(FIGURES), TRANSFORM.elements)
  return methods.make("densepose", models.make("resnet10", width=8), spec, **TINY)


def data_of(source) -> TaskData:
  records = [source[i] for i in range(len(source))]

  def batches(transform):
    made = host_batch(transform, records)
    yield {**made, "valid": np.ones(len(records), bool), "index": np.arange(len(records), dtype=np.int32)}

  test = TestRecords(
    batches,
    lambda transform, indices: host_batch(transform, [records[i] for i in indices]),
    records.__getitem__,
    lambda: np.array([[SIDE, SIDE]] * len(records), np.int32),
    source.fields,
    source.class_names,
  )
  nothing = lambda: iter(())
  return TaskData(nothing, nothing, 1, records=test, test_size=len(records), protocol={"data": "figures"})


def backbone(weights) -> Backbone:
  return Backbone(weights, method(), {"backbone": "tiny"}, ("person",))


@functools.cache
def learned(folder, steps=60):
  """(Data, weights before and after some steps of Adam on two figures, losses)."""
  made_people.write_people(folder, FIGURES)
  source = sources.make("coco", data_dir=str(folder), split="train")
  batch = host_batch(TRANSFORM, [source[i] for i in range(len(source))])
  batch = {name: jnp.asarray(leaf) for name, leaf in batch.items()}
  batch["image"] = batch["image"].astype(jnp.float32) / 255
  params, state, extra = jax.jit(method().init)(jax.random.key(0), batch)
  first, adam = Weights(params, state), optax.adam(3e-3)

  @jax.jit
  def step(params, state, opt_state, key):
    (loss, aux), gradient = jax.value_and_grad(method().loss, has_aux=True)(params, state, extra, batch, key)
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = adam.update(gradient, opt_state)
    return optax.apply_updates(params, updates), aux.model_state, opt_state, loss

  opt_state, found = adam.init(params), []
  for i in range(steps):
    params, state, opt_state, loss = step(params, state, opt_state, jax.random.key(i))
    found.append(float(loss))
  return data_of(source), first, Weights(params, state), found
