"""Small labelled image sets in the format of the tasks, and meshes of any size."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from ssl_jax.abilities import Pyramid
from ssl_jax.core import Weights
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import TaskData

SIDE = 4


def with_params(backbone: Backbone, params) -> Backbone:
  """Returns the backbone with other parameters."""
  return backbone._replace(weights=backbone.weights._replace(params=params))


@pytest.fixture(scope="session")
def mesh_of():
  def mesh_of(count):
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])

  return mesh_of


@pytest.fixture(scope="session")
def batches_of():
  """Makes `Batches` of arrays; the last one is padded with a masked repeat of its first row."""

  def batches_of(images, labels, size=64):
    def batches():
      for start in range(0, len(images), size):
        rows = np.arange(start, start + size)
        mask = rows < len(images)
        rows = np.where(mask, rows, start)
        yield {"image": images[rows], "label": labels[rows], "valid": mask}

    return batches

  return batches_of


@pytest.fixture(scope="session")
def make_data(batches_of):
  """Makes TaskData from (images, labels) pairs; live training shuffles by (seed, epoch)."""

  def make_data(train, test, num_classes, *, validation=None, size=64, **fields):
    images, labels = train

    def train_steps(batch_size, start, stop, seed):
      steps = len(images) // batch_size
      for step in range(start, stop):
        order = np.random.default_rng((seed, step // steps)).permutation(len(images))
        rows = order[step % steps * batch_size :][:batch_size]
        yield {"image": images[rows], "label": labels[rows]}

    return TaskData(
      batches_of(*train, size),
      batches_of(*test, size),
      num_classes,
      validation=batches_of(*validation, size) if validation else None,
      train_steps=train_steps,
      train_size=len(images),
      protocol={"data": "toy"},
      **fields,
    )

  return make_data


@pytest.fixture(scope="session")
def blobs():
  """blobs(count, seed) -> (images uint8[count, 4, 4, 3], labels): three linearly separable classes."""
  centres = np.random.default_rng(0).uniform(60, 195, (3, SIDE, SIDE, 3))

  def blobs(count, seed, noise=10.0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count).astype(np.int32)
    images = centres[labels] + noise * draw.standard_normal((count, SIDE, SIDE, 3))
    return images.round().clip(0, 255).astype(np.uint8), labels

  return blobs


@pytest.fixture(scope="session")
def noise():
  """noise(count, seed, classes) -> (images, balanced labels) that are independent of each other."""

  def noise(count, seed, classes=10):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return images, np.arange(count, dtype=np.int32) % classes

  return noise


@pytest.fixture(scope="session")
def dense():
  """A backbone of one matrix, 48 -> 16, with a feature map and a running mean that must not change."""
  params = {"weight": np.random.default_rng(1).standard_normal((48, 16)).astype(np.float32) / 7}
  model_state = {"mean": np.full(48, 0.5, np.float32)}

  def encode(params, model_state, images):
    return (images.reshape(len(images), -1) - model_state["mean"][None]) @ params["weight"]

  def pyramid(params, model_state, images):
    return {"early": images, "late": images[:, ::2, ::2] * 2}

  method = encoder_only(encode, {Pyramid: Pyramid(pyramid)})
  return Backbone(Weights(params, model_state), method, {"backbone": "dense"})
