"""Names and layouts of detectors: there and back, and what a file without its parts is refused for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import convert, models
from ssl_jax.convert import detectors, names
from ssl_jax.convert.names import Form
from ssl_jax.core import Weights
from ssl_jax.models.detection import detector

FORM = Form(bottleneck=False, detector=True)


@pytest.fixture(scope="module")
def weights() -> Weights:
  """A small Mask R-CNN's, random numbers."""
  net = detector(models.make("resnet10", width=4), 3, "fpn", True, channels=8, hidden=6)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(net.init, jax.eval_shape(lambda: jax.random.key(0)), image)
  random = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def tensors(weights):
  found = {}
  for path, leaf in convert._leaves(weights):
    counterparts, stacked = convert._counterparts(path, leaf.shape, FORM)
    found |= names.out_of(counterparts, leaf, stacked=stacked)
  return found


def test_tensors_give_the_same_weights_back(weights, tensors):
  read, shape = detectors.read(tensors, epsilon=1e-5)
  assert shape == (3, True, False, 8, 6)
  jax.tree.map(np.testing.assert_array_equal, convert.fill(weights, read, FORM, "it"), weights)


def test_names_and_shapes_are_torchvisions(tensors):
  for name, shape in {
    "backbone.body.layer4.0.conv2.weight": (32, 32, 3, 3),
    "backbone.body.bn1.running_var": (4,),
    "backbone.fpn.inner_blocks.3.0.weight": (8, 32, 1, 1),
    "backbone.fpn.layer_blocks.0.0.bias": (8,),
    "rpn.head.bbox_pred.weight": (12, 8, 1, 1),
    "roi_heads.box_head.fc6.weight": (6, 8 * 7 * 7),
    "roi_heads.box_predictor.cls_score.weight": (4, 6),
    "roi_heads.box_predictor.bbox_pred.bias": (16,),
    "roi_heads.mask_head.3.0.weight": (8, 8, 3, 3),
    "roi_heads.mask_predictor.conv5_mask.weight": (8, 8, 2, 2),
    "roi_heads.mask_predictor.mask_fcn_logits.weight": (4, 8, 1, 1),
  }.items():
    assert tensors[name].shape == shape, name


def test_the_background_comes_first_there_and_last_here(weights, tensors):
  theirs, ours = tensors["roi_heads.box_predictor.cls_score.bias"], weights.params["box"]["classes"]["bias"]
  np.testing.assert_array_equal(theirs[0], ours[-1])
  np.testing.assert_array_equal(theirs[1:], ours[:-1])
  assert not tensors["roi_heads.box_predictor.bbox_pred.bias"][:4].any()


def test_a_missing_part_is_named(weights, tensors):
  with pytest.raises(ValueError, match="no Faster R-CNN or Mask R-CNN of torchvision: it has no roi_heads"):
    detectors.read({"conv1.weight": tensors["backbone.body.conv1.weight"]})
  read, _ = detectors.read(tensors)
  del read["rpn.head.cls_logits.bias"]
  with pytest.raises(ValueError, match=r"missing rpn\.head\.cls_logits\.bias"):
    convert.fill(weights, read, FORM, "it")
