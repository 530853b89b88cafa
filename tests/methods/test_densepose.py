"""The method densepose: what it needs, what its options change, what its parts are trained by."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import DensePose, ObjectDetector
from ssl_jax.core import DataSpec
from ssl_jax.data.host import Frame, image, image_boxes, image_densepose

SIDE, ROWS, POINTS, BATCH = 32, 3, 5, 2
ELEMENTS = image_densepose(Frame(SIDE), max_boxes=ROWS, max_points=POINTS, segment_size=8).elements
SMALL = dict(
  channels=8,
  hidden=16,
  anchors=32,
  rois=16,
  before=(64, 64),
  proposals=(16, 8),
  detections=2,
  least_score=0.0,
  dense_channels=8,
  dense_width=8,
  dense_layers=1,
  dense_rois=2,
)


def make(elements=ELEMENTS, classes=1, **options):
  encoder = models.make("resnet10", width=8)
  return methods.make("densepose", encoder, DataSpec(100, classes, BATCH, elements), **{**SMALL, **options})


def batch(**changes):
  random = np.random.default_rng(0)
  made = {name: np.zeros((BATCH, *spec.shape), spec.dtype) for name, spec in ELEMENTS.items()}
  made["image"] = random.uniform(0, 1, (BATCH, SIDE, SIDE, 3)).astype(np.float32)
  made["image_size"] += SIDE
  made["boxes"][:, 0], made["boxes"][1, 1] = (4, 6, 20, 30), (12, 2, 30, 18)
  made["boxes_valid"][:, 0] = made["boxes_valid"][1, 1] = True
  made["boxes_points"] = random.uniform(0.1, 0.9, made["boxes_points"].shape).astype(np.float32)
  made["boxes_points_uv"] = random.uniform(0, 1, made["boxes_points"].shape).astype(np.float32)
  made["boxes_points_part"] += 3
  made["boxes_points_valid"][:, 0] = True  # the second object of the second image has a box only
  made["boxes_segments"] += 2
  return jax.tree.map(jnp.asarray, made | changes)


@functools.lru_cache
def program(**options):
  """(Its initial state, the compiled loss with gradients)."""
  method = make(**options)
  learn = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
  return jax.jit(method.init)(jax.random.key(0), batch()), learn


def losses(rows, **options):
  (params, state, extra), learn = program(**options)
  (total, aux), gradients = learn(params, state, extra, rows, jax.random.key(1))
  return total, {name: float(value.value()) for name, value in aux.metrics.items()}, gradients


def test_the_loss_is_the_sum_of_the_seven_that_are_logged():
  total, logged, _ = losses(batch())
  names = ("objectness", "proposals", "classes", "boxes", "coarse", "fine", "uv")
  assert set(logged) == {f"loss_{name}" for name in names}
  assert sum(logged.values()) == pytest.approx(float(total), rel=1e-6)
  assert logged["loss_fine"] == pytest.approx(np.log(25), abs=0.05)
  assert logged["loss_coarse"] == pytest.approx(5 * np.log(2), abs=0.1)


def test_boxes_without_points_do_not_train_the_head():
  bare = batch(boxes_points_valid=jnp.zeros((BATCH, ROWS, POINTS), bool))
  _, logged, gradients = losses(bare)
  assert logged["loss_coarse"] == logged["loss_fine"] == logged["loss_uv"] == 0 < logged["loss_classes"]
  assert not any(
    np.asarray(leaf).any() for leaf in jax.tree.leaves((gradients["dense"], gradients["decoder"]))
  )
  one, other = batch(), batch(boxes_points_part=batch()["boxes_points_part"].at[1, 1].set(9))
  assert losses(one)[0] == losses(other)[0]  # the points of the second object are not valid


def test_options_reach_the_network():
  shape = lambda **options: jax.eval_shape(make(**options).init, jax.random.key(0), batch())
  flat = lambda init: flax.traverse_util.flatten_dict(init.params, sep="/")
  wide = flat(shape(coarse=15, dense_width=12, dense_layers=2, dense_channels=6))
  assert wide["dense/coarse/kernel"].shape == (4, 4, 12, 15) and "dense/conv2/kernel" in wide
  assert wide["decoder/merge/kernel"].shape == (1, 1, 6, 6)
  frozen = shape(batch_norm="frozen", freeze=2)
  assert not [name for name in flat(frozen) if "stage1" in name or name.endswith("scale")]
  usual, other = losses(batch())[1], losses(batch(), images_summed=4, dense_legacy=True)[1]
  assert other["loss_uv"] == pytest.approx(2 * usual["loss_uv"], rel=0.02)
  assert other["loss_fine"] != usual["loss_fine"] and other["loss_boxes"] == usual["loss_boxes"]


def test_its_abilities_share_one_prediction():
  method = make()
  params, state, _ = program()[0]
  dense = method.abilities[DensePose]
  assert dense.predict is method.abilities[ObjectDetector].predict
  found = jax.jit(dense.predict)(params, state, batch()["image"], batch()["image_size"])
  assert found.further.parts.shape == (BATCH, 2, 112, 112) and found.detections.boxes.shape == (BATCH, 2, 4)


def test_what_does_not_fit_is_refused():
  with pytest.raises(
    ValueError, match="needs boxes_points, boxes_points_part.*use config.host.name='image_dense"
  ):
    make(image_boxes(Frame(SIDE)).elements)
  with pytest.raises(ValueError, match="method 'densepose' needs boxes, boxes_points"):
    make(image(Frame(SIDE)).elements)
  with pytest.raises(ValueError, match="config.method.coarse is 3; use 2"):
    make(coarse=3)
  with pytest.raises(ValueError, match="config.method.freeze is 1, but the BatchNorm"):
    make(freeze=1)
  with pytest.raises(ValueError, match="config.method.rois is 0"):
    make(rois=0)
