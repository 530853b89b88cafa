"""The baselines along videos on a small network of 'joint_segmentation', on crops of windows of frames."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, methods, models, parallel, tasks
from ssl_jax.abilities import Segmenter
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host
from ssl_jax.tasks.backbone import Backbone
from tests.tasks.masked_images import NAMES, data_of, painted

SIZE, CROP = 32, 16


def frames() -> list[dict]:
  return [{**record, "clip_name": "a"} for record in painted(4, 0, sides=(28, 33))]


@functools.cache
def backbone() -> Backbone:
  data = DataSpec(100, 3, 4, host.image_mask(host.Frame(SIZE)).elements)
  encoder = models.make("resnet10", width=8, stem="small", output_stride=8, norm="group")
  method = methods.make("joint_segmentation", encoder, data, head="fcn", channels=8, mask_patch=4)
  batch = {"image": jnp.zeros((2, SIZE, SIZE, 3)), "mask": jnp.zeros((2, SIZE, SIZE), jnp.uint8)}
  params, state, _ = jax.jit(method.init)(jax.random.key(0), batch)
  # Without training one class is the largest everywhere; let the pixels decide.
  images = np.stack([record["image"][:24, :24] for record in frames()]).astype(np.float32) / 255
  logits = jax.jit(method.abilities[Segmenter].predict)(params, state, images)
  mean, spread = np.asarray(logits.mean((0, 1, 2))), float(logits.std())

  def centred(path, leaf):
    if "classes" not in jax.tree_util.keystr(path):
      return leaf
    return (leaf - mean if leaf.shape == mean.shape else leaf) / spread

  params["head"] = jax.tree_util.tree_map_with_path(centred, params["head"])
  weights = jax.device_get(Weights(params, state))
  return Backbone(weights, method, {"backbone": "tiny"}, class_names=NAMES)


def run(**options):
  data = data_of(frames())
  assert data.records is not None
  test = data.records._replace(fields=(*data.records.fields, "clip_name"))
  crops = augment.make("scale_jitter", views=1, size=CROP, scale=(1.0, 1.0), flip=0.5)
  chosen = {"copies": 4, "window": 3, "learning_rate": 1e-2, "encoder_rate": 1.0, "clip_norm": 0.0, **options}
  mesh = parallel.make_mesh(jax.devices()[:1])
  return tasks.make("ttt_video", **chosen).run(
    backbone(), data._replace(records=test, augment=crops), mesh, jax.random.key(0)
  )


@pytest.mark.parametrize("objective", ["own", "tent", "self_training"])
def test_each_objective_learns_on_crops_with_the_guard_and_averages(objective):
  options = dict(objective=objective, confidence=0.3)
  found = run(**options, balance=0.4, smoothing=0.5, vote=2)
  losses = found.predictions["loss"]
  assert np.isfinite(losses).all() and (losses > 0).all() and found.scalars["diverged"] == 0
  assert 0 <= found.scalars["resets"] <= 1 and found.protocol["balance"] == 0.4
  rows = found.predictions["predicted"]
  assert (rows[1:, 1] != rows[1:, 2]).any() or found.scalars["resets"] == 1  # the parameters moved
  moved = {"own": ["encoder", "decoder"], "tent": ["*[Nn]orm*"], "self_training": ["encoder"]}
  assert found.protocol["trainable"] == moved[objective]


def test_pixels_that_are_never_sure_teach_nothing():
  found = run(objective="self_training", confidence=0.999999)
  assert (found.predictions["loss"] == 0).all()
