"""Detectors: shapes, losses that fall, gradients, what must not matter, programs without callbacks."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.detect.proposals import Rois
from ssl_jax.detect.rules import Limits
from ssl_jax.models import detection
from ssl_jax.models.detection_bodies import BODIES, RoiOptions, merge
from tests.detect.programs import largest_array

CLASSES, SIDE, ROWS = 3, 64, 4
LIMITS = Limits((64, 64), (32, 16), anchors=1024, rois=16, detections=5, least_score=0.0)
KINDS = ("c4", "fpn")


def make(kind="fpn", masks=True, classes=CLASSES, **options):
  encoder = models.make("resnet10", width=8, **options.pop("encoder", {}))
  options = dict(channels=16, hidden=32, limits=LIMITS) | options
  return detection.detector(encoder, classes, kind, masks, **options)


def batch(padding=0.0, rows=ROWS):
  """Two images of 60 x 56 pixels in 64 x 64, with one and two bright rectangles."""
  random = np.random.default_rng(0)
  images = random.uniform(0, 0.4, (2, SIDE, SIDE, 3)).astype(np.float32)
  boxes = np.full((2, rows, 4), padding, np.float32)
  boxes[0, 0], boxes[1, 0], boxes[1, 1] = (8, 8, 40, 44), (4, 20, 36, 52), (30, 4, 54, 28)
  valid = np.zeros((2, rows), bool)
  valid[0, :1] = valid[1, :2] = True
  classes = np.full((2, rows), 99, np.int32)
  classes[0, 0], classes[1, 0], classes[1, 1] = 0, 1, 2
  masks = np.ones((2, rows, SIDE, SIDE), bool)
  for image, row in zip(*np.nonzero(valid)):
    x1, y1, x2, y2 = boxes[image, row].astype(int)
    images[image, y1:y2, x1:x2, classes[image, row]] += 0.5
    masks[image, row] = False
    masks[image, row, y1:y2, x1:x2] = True
  targets = dict(
    boxes=boxes, boxes_class=classes, boxes_valid=valid, boxes_crowd=np.zeros((2, rows), bool), masks=masks
  )
  sizes = jnp.array([[60, 56]] * 2)
  return jnp.asarray(images), sizes, jax.tree.map(jnp.asarray, targets)


def total(net, params, state, images, sizes, targets, key):
  terms, state = net.train_loss(Weights(params, state), images, sizes, targets, key)
  return sum(terms.values()), (terms, state)


@functools.lru_cache
def program(kind, masks=True, **options):
  """(Its weights, the compiled loss with gradients, the compiled prediction) of a detector."""
  net = make(kind, masks, **options)
  weights = jax.jit(net.init)(jax.random.key(0), batch()[0])
  learn = jax.jit(jax.value_and_grad(functools.partial(total, net), has_aux=True))
  return weights, learn, jax.jit(net.predict)


def flat(tree):
  return flax.traverse_util.flatten_dict(tree, sep="/")


def shapes(kind, masks=True, **options):
  """The parameters of a detector by path; only traced."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  image = jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32)
  params = jax.eval_shape(make(kind, masks, **options).init, key, image).params
  return {name: leaf.shape for name, leaf in flat(params).items()}


def changed(tree, other):
  return [not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (tree, other)))]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_fall_and_gradients_reach_every_leaf(kind):
  (params, state), learn, _ = program(kind)
  data, optimizer = batch(), optax.sgd(0.03, 0.9)
  opt_state, history = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for step in range(20):
    (_, (terms, new)), gradients = learn(params, state, *data, jax.random.key(step))
    if not step:
      assert not [name for name, leaf in flat(gradients).items() if not np.abs(leaf).max() > 0]
      assert jax.tree.structure(new) == jax.tree.structure(state)
      assert all(changed(state, new))  # every BatchNorm, also that of res5, saw the batch
    state = new
    updates, opt_state = update(gradients, opt_state)
    params = optax.apply_updates(params, updates)
    history.append({name: float(value) for name, value in terms.items()})
  assert set(history[0]) == {"objectness", "proposals", "classes", "boxes", "masks"}
  assert np.isfinite([list(terms.values()) for terms in history]).all()
  first, last = (sum(sum(terms.values()) for terms in part) for part in (history[:3], history[-3:]))
  assert last < 0.75 * first, (history[0], history[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_have_fixed_shapes_and_lie_within_the_image(kind):
  weights, _, predict = program(kind)
  images, sizes, _ = batch()
  found = predict(weights, images, sizes)
  assert found.detections.boxes.shape == (2, 5, 4) and found.detections.valid.any(1).all()
  side = {"c4": 14, "fpn": 28}[kind]
  assert found.masks.shape == (2, 5, side, side) and 0 <= found.masks.min() and found.masks.max() <= 1
  assert (np.asarray(found.detections.boxes) <= np.array([56, 60, 56, 60])).all()


def test_padding_does_not_matter():
  """Neither pixels beyond the image nor rows that are not valid; and nothing is traced for other contents."""
  weights, learn, predict = program("fpn")
  images, sizes, targets = batch()
  key = jax.random.key(0)
  one = learn(*weights, images, sizes, targets, key), predict(weights, images, sizes)
  dirty = batch(np.nan)[2]
  dirty["boxes_class"] = jnp.where(dirty["boxes_valid"], dirty["boxes_class"], -1000)
  noise = images.at[:, 60:].set(7.0).at[:, :, 56:].set(np.nan)
  other = learn(*weights, noise, sizes, dirty, key), predict(weights, noise, sizes)
  jax.tree.map(np.testing.assert_array_equal, one, other)
  moved = learn(*weights, images, sizes - 8, targets, key), predict(weights, images, sizes - 8)
  assert abs(moved[0][0][0] - one[0][0][0]) > 1e-4
  assert learn._cache_size() == predict._cache_size() == 1


def test_the_canvas_of_a_pyramid_grows_to_a_multiple_of_32():
  weights, _, predict = program("fpn")
  images, sizes, _ = batch()
  cut = jax.jit(make("fpn").predict)(weights, images[:, :60, :56], sizes)
  wanted = predict(weights, images, sizes)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), cut, wanted)


def test_images_without_objects_teach_the_background():
  weights, learn, _ = program("fpn")
  images, sizes, targets = batch()
  targets["boxes_valid"] = jnp.zeros_like(targets["boxes_valid"])
  (_, (terms, _)), gradients = learn(*weights, images, sizes, targets, jax.random.key(0))
  assert terms["proposals"] == terms["boxes"] == terms["masks"] == 0 < terms["classes"]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_crowds_are_no_objects():
  weights, learn, _ = program("fpn")
  images, sizes, targets = batch()
  one = learn(*weights, images, sizes, targets, jax.random.key(0))
  more = {name: rows.at[0, 1].set(rows[1, 0]) for name, rows in targets.items()}
  crowd = more | {"boxes_crowd": more["boxes_crowd"].at[0, 1].set(True)}
  jax.tree.map(np.testing.assert_array_equal, one, learn(*weights, images, sizes, crowd, jax.random.key(0)))
  assert learn(*weights, images, sizes, more, jax.random.key(0))[0][0] != one[0][0]
  truths = [detection._truth(crowd, ignore) for ignore in (False, True)]
  assert [int(truth.valid.sum()) for truth in truths] == [3, 4]
  assert [int(truth.crowds.sum()) for truth in truths] == [0, 1]


def test_frozen_norms_stay_and_the_rest_is_trained():
  weights, learn, _ = program("fpn", False, batch_norm="frozen", fpn_norm=True, agnostic=True)
  (_, (_, state)), gradients = learn(*weights, *batch(), jax.random.key(0))
  assert not any(changed(state["encoder"], weights.model_state["encoder"]))
  assert all(changed(state["fpn"], weights.model_state["fpn"]))
  for name, leaf in flat(gradients).items():
    is_frozen = name.startswith("encoder/") and name.endswith(("scale", "bias"))
    assert (np.abs(leaf).max() == 0) == is_frozen, name


def test_the_encoder_is_a_plain_resnet():
  """Weights of any pre-trained encoder fit by name, and with two groups each image has its statistics."""
  encoder = models.make("resnet10", width=8, batch_groups=2)
  images = batch()[0]
  own = jax.jit(encoder.init)(jax.random.key(0), images)
  for kind in KINDS:
    found = shapes(kind, encoder=dict(batch_groups=2))
    assert {f"encoder/{name}": leaf.shape for name, leaf in flat(own.params).items()} == {
      name: shape for name, shape in found.items() if name.startswith("encoder/")
    }
  body = BODIES["c4"](encoder, RoiOptions(16, False, False, 2, True))
  run = jax.jit(functools.partial(body.maps, train=True))
  weights = merge(Weights({}, {}), "encoder", own)
  maps = [run(weights, x)[0][0] for x in (images, images.at[1].set(images[1, ::-1]))]
  np.testing.assert_array_equal(maps[0][0], maps[1][0])
  assert not np.array_equal(maps[0][1], maps[1][1])


def test_options_change_the_parameters():
  assert "fpn/norm_lateral2/scale" in shapes("fpn", fpn_norm=True)
  assert "fpn/lateral2/bias" not in shapes("fpn", fpn_norm=True) and "fpn/lateral2/bias" in shapes("fpn")
  assert "norm/norm/scale" in shapes("c4") and "norm/norm/scale" not in shapes("c4", extra_norm=False)
  assert shapes("fpn")["box/deltas/kernel"] == (32, 4 * CLASSES)
  assert shapes("fpn", agnostic=True)["box/deltas/kernel"] == (32, 4)
  assert not [name for name in shapes("c4", masks=False) if name.startswith("mask")]


def test_losses_at_the_start_are_those_of_chance():
  weights, learn, _ = program("fpn")
  small = jax.tree.map(lambda leaf: leaf * 1e-3, {k: weights.params[k] for k in ("rpn", "box", "mask")})
  (_, (terms, _)), _ = learn({**weights.params, **small}, weights.model_state, *batch(), jax.random.key(0))
  assert 0.5 * np.log(2) < terms["objectness"] < np.log(2)  # fewer anchors than 1024 are sampled
  np.testing.assert_allclose(terms["classes"], np.log(CLASSES + 1), rtol=1e-3)
  np.testing.assert_allclose(terms["masks"], np.log(2), rtol=1e-3)


def test_rois_that_are_padding_repeat_valid_ones():
  boxes = jnp.arange(12.0).reshape(1, 3, 4)
  valid = jnp.array([[True, True, False]])
  repeated = detection._repeated(Rois(boxes, jnp.zeros((1, 3), int), valid, valid))
  np.testing.assert_array_equal(repeated[0, 2], boxes[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_programs_of_full_size_call_no_host(kind):
  """A ResNet at 320 x 480 with the published numbers of boxes; only traced. No array exceeds 1 GiB."""
  net = detection.detector(models.make("resnet10"), 80, kind, True)
  shape = jax.ShapeDtypeStruct
  images, sizes = shape((1, 320, 480, 3), jnp.float32), shape((1, 2), jnp.int32)
  targets = dict(
    boxes=shape((1, 100, 4), jnp.float32),
    boxes_class=shape((1, 100), jnp.int32),
    boxes_valid=shape((1, 100), bool),
    boxes_crowd=shape((1, 100), bool),
    masks=shape((1, 100, 320, 480), bool),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  weights = jax.eval_shape(net.init, key, images)
  learn = jax.value_and_grad(functools.partial(total, net), has_aux=True)
  assert largest_array(learn, *weights, images, sizes, targets, key) < 2**30
  assert largest_array(net.predict, weights, images, sizes) < 2**30


@pytest.mark.parametrize("kind", KINDS)
def test_activations_in_bfloat16_give_losses_and_boxes_in_float32(kind):
  net, data = make(kind, encoder=dict(dtype="bfloat16")), batch()
  weights = jax.eval_shape(net.init, jax.random.key(0), data[0])
  terms, _ = jax.eval_shape(net.train_loss, weights, *data, jax.random.key(0))
  found = jax.eval_shape(net.predict, weights, *data[:2])
  leaves = [*jax.tree.leaves((weights, terms)), found.masks, found.detections.boxes, found.detections.scores]
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(kind="ssd"), "config.method.kind is 'ssd'"),
    (dict(convention="keras"), "config.method.convention is 'keras'"),
    (dict(batch_norm="none"), "config.method.batch_norm is 'none'"),
    (dict(classes=0), "needs boxes of one class or more"),
    (dict(encoder=dict(stem="cifar")), "stem='cifar' and output_stride=0; use four stages"),
    (dict(encoder=dict(output_stride=16)), "output_stride=16; use four stages"),
  ],
)
def test_options_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    make(**change)


def test_only_resnets_fit():
  with pytest.raises(ValueError, match="needs the stages of a ResNet"):
    detection.detector(models.make("vit_tiny"), 2)
