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
from ssl_jax.models import detection
from tests.detect.programs import largest_array

CLASSES, SIDE, ROWS = 3, 64, 4
LIMITS = detection.Limits((64, 64), (32, 16), anchors=32, rois=16, detections=5, least_score=0.0)
KINDS = [(kind, masks) for kind in ("c4", "fpn") for masks in (False, True)]


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
def program(kind, masks, **options):
  """(Detector, its weights, the compiled loss with gradients)."""
  net = make(kind, masks, **options)
  weights = jax.jit(net.init)(jax.random.key(0), batch()[0])
  return net, weights, jax.jit(jax.value_and_grad(functools.partial(total, net), has_aux=True))


def flat(tree):
  return flax.traverse_util.flatten_dict(tree, sep="/")


@pytest.mark.parametrize("kind, masks", KINDS)
def test_losses_fall_and_gradients_reach_every_leaf(kind, masks):
  net, weights, learn = program(kind, masks)
  data, optimizer = batch(), optax.adam(3e-3)
  params, state = weights
  assert flat(params["encoder"]).keys() == flat(models.make("resnet10", width=8).init(
    jax.random.key(0), data[0]).params).keys()  # fmt: skip
  opt_state, history = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for step in range(25):
    (_, (terms, new)), gradients = learn(params, state, *data, jax.random.key(step))
    if not step:
      assert all(np.abs(leaf).max() > 0 for leaf in flat(gradients).values()), gradients
      assert jax.tree.structure(new) == jax.tree.structure(state)
      changed = jax.tree.map(lambda a, b: bool((a != b).any()), state, new)
      assert all(jax.tree.leaves(changed))  # every BatchNorm, also that of res5, saw the batch
    state = new
    updates, opt_state = update(gradients, opt_state)
    params = optax.apply_updates(params, updates)
    history.append({name: float(value) for name, value in terms.items()})
  assert set(history[0]) == {"objectness", "proposals", "classes", "boxes"} | ({"masks"} if masks else set())
  assert np.isfinite([list(terms.values()) for terms in history]).all()
  first, last = (sum(sum(terms.values()) for terms in part) for part in (history[:3], history[-3:]))
  assert last < 0.6 * first, (history[0], history[-1])


def test_losses_at_the_start_are_those_of_chance():
  _, weights, learn = program("fpn", True)
  small = jax.tree.map(lambda leaf: leaf * 1e-3, {k: weights.params[k] for k in ("rpn", "box", "mask")})
  (_, (terms, _)), _ = learn({**weights.params, **small}, weights.model_state, *batch(), jax.random.key(0))
  np.testing.assert_allclose(terms["objectness"], np.log(2), rtol=1e-3)
  np.testing.assert_allclose(terms["classes"], np.log(CLASSES + 1), rtol=1e-3)
  np.testing.assert_allclose(terms["masks"], np.log(2), rtol=1e-3)


@pytest.mark.parametrize("kind", ["c4", "fpn"])
def test_predictions_have_fixed_shapes_and_lie_within_the_image(kind):
  net, weights, _ = program(kind, True)
  images, sizes, _ = batch()
  found = jax.jit(net.predict)(weights, images, sizes)
  assert found.detections.boxes.shape == (2, 5, 4) and found.detections.valid.any(1).all()
  side = {"c4": 14, "fpn": 28}[kind]
  assert found.masks.shape == (2, 5, side, side) and 0 <= found.masks.min() and found.masks.max() <= 1
  assert (found.detections.boxes <= np.array([56, 60, 56, 60])).all()
  assert program(kind, False)[0].predict(program(kind, False)[1], images, sizes).masks is None


def test_padding_does_not_matter():
  """Neither pixels beyond the image nor rows that are not valid; and nothing is traced for other contents."""
  net, weights, _ = program("fpn", True)
  traces = []

  @jax.jit
  def run(images, sizes, targets, key):
    traces.append(1)
    return jax.value_and_grad(functools.partial(total, net), has_aux=True)(
      *weights, images, sizes, targets, key
    ), net.predict(weights, images, sizes)

  images, sizes, targets = batch()
  one = run(images, sizes, targets, jax.random.key(0))
  dirty = batch(np.nan)[2]
  dirty |= {"boxes_class": targets["boxes_class"] - 1000 * ~targets["boxes_valid"]}
  noise = images.at[:, 60:].set(7.0).at[:, :, 56:].set(np.nan)
  other = run(noise, sizes, dirty, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  moved = run(images, sizes - 8, targets, jax.random.key(0))
  assert abs(moved[0][0][0] - one[0][0][0]) > 1e-4 and len(traces) == 1


def test_more_rows_of_padding_do_not_matter():
  """But for the random draws: with no ground truth nothing is drawn for other reasons."""
  net, weights, learn = program("fpn", True)
  empty = []
  for rows in (ROWS, ROWS + 3):
    images, sizes, targets = batch(rows=rows)
    targets["boxes_valid"] = jnp.zeros_like(targets["boxes_valid"])
    (_, (terms, _)), gradients = learn(*weights, images, sizes, targets, jax.random.key(0))
    assert terms["proposals"] == terms["boxes"] == terms["masks"] == 0 and np.isfinite(terms["classes"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    empty.append(terms)
  np.testing.assert_allclose(empty[0]["objectness"], empty[1]["objectness"], rtol=1e-6)


def test_crowds_are_no_objects():
  _, weights, learn = program("fpn", True)
  images, sizes, targets = batch()
  one = learn(*weights, images, sizes, targets, jax.random.key(0))
  more = {k: v.at[0, 1].set(v[1, 0]) for k, v in targets.items()}
  more["boxes_crowd"] = more["boxes_crowd"].at[0, 1].set(True)
  jax.tree.map(np.testing.assert_array_equal, one, learn(*weights, images, sizes, more, jax.random.key(0)))
  ignoring = make(ignore_crowds=True)
  terms, _ = jax.jit(ignoring.train_loss)(weights, images, sizes, more, jax.random.key(0))
  assert terms["objectness"] != one[0][1][0]["objectness"]


def test_masks_in_frames_equal_masks_of_the_image():
  net, weights, _ = program("fpn", True)
  images, sizes, targets = batch()
  frames = jnp.tile(jnp.array([0.0, 0.0, SIDE, SIDE]), (2, ROWS, 1))
  apply = jax.jit(net.train_loss)
  whole = apply(weights, images, sizes, targets, jax.random.key(0))[0]
  framed = apply(weights, images, sizes, targets | {"mask_frames": frames}, jax.random.key(0))[0]
  np.testing.assert_allclose(whole["masks"], framed["masks"], rtol=1e-6)
  moved = apply(weights, images, sizes, targets | {"mask_frames": frames + 9}, jax.random.key(0))[0]
  assert abs(moved["masks"] - whole["masks"]) > 1e-3


@pytest.mark.parametrize("kind", ["c4", "fpn"])
def test_frozen_norms_stay_and_the_rest_is_trained(kind):
  net, weights, learn = program(kind, False, batch_norm="frozen")
  (_, (_, state)), gradients = learn(*weights, *batch(), jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, state["encoder"], weights.model_state["encoder"])
  for name, leaf in flat(gradients).items():
    is_frozen = name.startswith("encoder/") and name.endswith(("scale", "bias"))
    assert (np.abs(leaf).max() == 0) == is_frozen, name


def test_groups_normalise_apart():
  """With two groups the statistics of each image are its own: the other image does not matter to it."""
  images, sizes, targets = batch()
  other = images.at[1].set(images[1, ::-1])
  maps = {}
  for groups in (1, 2):
    net = make("c4", False, encoder=dict(batch_groups=groups))
    weights = net.init(jax.random.key(0), images)
    encoder = models.make("resnet10", width=8, batch_groups=groups)
    trunk = models.split(encoder, "stage3")[0]
    own = Weights(weights.params["encoder"], weights.model_state["encoder"])
    maps[groups] = [trunk.apply(own, x, train=True)[0][0] for x in (images, other)]
    terms, _ = net.train_loss(weights, images, sizes, targets, jax.random.key(0))
    assert np.isfinite(list(terms.values())).all()
  np.testing.assert_array_equal(*maps[2])
  assert not np.array_equal(*maps[1])


def test_pyramid_norm_extra_norm_and_shared_boxes():
  images, sizes, targets = batch()
  assert "norm_lateral2" in program("fpn", False, fpn_norm=True)[1].params["fpn"]
  assert "norm" not in program("c4", False, extra_norm=False)[1].params
  _, weights, learn = program("fpn", False, agnostic=True)
  assert weights.params["box"]["deltas"]["kernel"].shape == (32, 4)
  for options in (dict(kind="fpn", fpn_norm=True), dict(kind="fpn", agnostic=True)):
    net, weights, learn = program(masks=False, **options)
    (value, _), _ = learn(*weights, images, sizes, targets, jax.random.key(0))
    assert np.isfinite(value)
  assert jax.jit(net.predict)(weights, images, sizes).detections.valid.any()


def test_rois_that_are_padding_repeat_valid_ones():
  boxes = jnp.arange(12.0).reshape(1, 3, 4)
  valid = jnp.array([[True, True, False]])
  repeated = detection._repeated(Rois(boxes, jnp.zeros((1, 3), int), valid, valid))
  np.testing.assert_array_equal(repeated[0, 2], boxes[0, 0])


@pytest.mark.parametrize("kind", ["c4", "fpn"])
def test_programs_of_full_size_call_no_host(kind):
  """ResNet-50 at 320 x 480 with the published numbers of boxes; only traced. No array exceeds 1 GiB."""
  net = detection.detector(models.make("resnet50"), 80, kind, True)
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
  learn = jax.grad(functools.partial(total, net), has_aux=True)
  assert largest_array(learn, *weights, images, sizes, targets, key) < 2**30
  assert largest_array(net.predict, weights, images, sizes) < 2**30


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
    detection.detector(models.make("vit_ti16"), 2)
