import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models, optim
from ssl_jax.abilities import ObjectDetector
from ssl_jax.core import DataSpec, TrainState, make_train_step
from ssl_jax.data.host import Frame, image, image_instances
from ssl_jax.models import frozen_parts

SIDE, ROWS, CLASSES, BATCH = 32, 3, 4, 2
ELEMENTS = image_instances(Frame(SIDE), max_boxes=ROWS, mask_size=14).elements
SMALL = dict(
  channels=8,
  hidden=16,
  anchors=32,
  rois=16,
  before=(64, 64),
  proposals=(16, 8),
  detections=5,
  least_score=0.0,
)


def data(elements=ELEMENTS, classes=CLASSES):
  return DataSpec(100, classes, BATCH, elements)


def make(kind="fpn", masks=True, elements=ELEMENTS, **options):
  encoder = models.make("resnet10", width=8)
  return methods.make("detection", encoder, data(elements), kind=kind, masks=masks, **{**SMALL, **options})


def batch(**changes):
  random = np.random.default_rng(0)
  boxes = np.zeros((BATCH, ROWS, 4), np.float32)
  boxes[:, 0], boxes[1, 1] = (4, 6, 20, 24), (12, 2, 30, 18)
  valid = np.zeros((BATCH, ROWS), bool)
  valid[:, 0] = valid[1, 1] = True
  found = dict(
    image=random.uniform(0, 1, (BATCH, SIDE, SIDE, 3)).astype(np.float32),
    image_size=np.array([[28, 32], [32, 30]], np.int32),
    boxes=boxes,
    boxes_class=np.array([[1, 9, 9], [0, 3, 9]], np.int32),
    boxes_crowd=np.zeros((BATCH, ROWS), bool),
    boxes_difficult=np.zeros((BATCH, ROWS), bool),
    boxes_valid=valid,
    boxes_mask=np.ones((BATCH, ROWS, 14, 14), np.uint8),
  )
  return jax.tree.map(jnp.asarray, found | changes)


@functools.lru_cache
def program(kind="fpn", masks=True, **options):
  """(Method, its initial state, the compiled loss with gradients)."""
  method = make(kind, masks, **options)
  learn = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
  return method, jax.jit(method.init)(jax.random.key(0), batch()), learn


def losses(rows, kind="fpn", masks=True, **options):
  _, (params, state, extra), learn = program(kind, masks, **options)
  (total, aux), gradients = learn(params, state, extra, rows, jax.random.key(1))
  return total, aux, gradients


def names(tree):
  return {"/".join(path) for path in flax.traverse_util.flatten_dict(tree)}


def test_the_loss_is_the_sum_of_the_five_that_are_logged():
  total, aux, _ = losses(batch())
  logged = {name: float(value.value()) for name, value in aux.metrics.items()}
  assert set(logged) == {f"loss_{name}" for name in ("objectness", "proposals", "classes", "boxes", "masks")}
  assert sum(logged.values()) == pytest.approx(float(total), rel=1e-6)
  assert logged["loss_classes"] == pytest.approx(np.log(CLASSES + 1), rel=0.1)


def test_padding_and_the_rows_of_padding_do_not_matter():
  rows = batch()
  inside = (jnp.arange(SIDE) < 28)[None, :, None, None] | jnp.array([False, True])[:, None, None, None]
  changed = batch(image=jnp.where(inside, rows["image"], 0.9), boxes=rows["boxes"].at[0, 2].set(7.0))
  assert float(losses(rows)[0]) == float(losses(changed)[0])
  everywhere = {name: leaf for name, leaf in rows.items() if name != "image_size"}
  whole = batch(image_size=jnp.full((BATCH, 2), SIDE))
  _, (params, state, extra), _ = program()
  loss = jax.jit(lambda rows: program()[0].loss(params, state, extra, rows, jax.random.key(1))[0])
  assert float(loss(everywhere)) == pytest.approx(float(losses(whole)[0]), rel=1e-5)


def test_the_masks_are_those_in_the_frames_of_the_boxes():
  """A mask that covers the left half of its box is another target than one that covers the right half."""
  full = batch()["boxes_mask"]
  left = full.at[..., 7:].set(0)
  right = full.at[..., :7].set(0)
  found = [float(losses(batch(boxes_mask=masks))[1].metrics["loss_masks"].value()) for masks in (left, right)]
  assert abs(found[0] - found[1]) > 1e-5


def test_frozen_parts_are_neither_trained_nor_decayed():
  method, (params, state, _), _ = program(batch_norm="frozen", freeze=2)
  kept, trained = names(state[frozen_parts.FROZEN]), names(params)
  assert "encoder/conv_stem/kernel" in kept and "encoder/stage1_block1/Conv_0/kernel" in kept
  assert "encoder/stage2_block1/Conv_0/kernel" in trained
  assert not {name for name in trained if name.startswith("encoder") and name.endswith(("scale", "bias"))}
  rule = optim.make_optimizer(
    total_steps=10, steps_per_epoch=5, batch_size=BATCH, learning_rate=0.1, weight_decay=0.1
  ).transform
  step = make_train_step(method, lambda key, rows: rows, rule)
  begin = TrainState(jnp.zeros((), jnp.int32), params, state, (), rule.init(params), jax.random.key(0))
  after = jax.jit(step)(begin, batch())[0]
  jax.tree.map(np.testing.assert_array_equal, after.model_state, state)  # the running statistics, too
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, params)
  assert all(flax.traverse_util.flatten_dict(moved["encoder"]).values())


def test_trained_norms_move_and_are_not_decayed():
  params = program()[1].params
  rule = optim.make_optimizer(
    total_steps=10,
    steps_per_epoch=5,
    batch_size=BATCH,
    learning_rate=1.0,
    schedule="constant",
    momentum=0.0,
    weight_decay=0.1,
    weight_decay_on="no_norms",
  ).transform
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates = flax.traverse_util.flatten_dict(rule.update(zeros, rule.init(params), params)[0], sep="/")
  before = flax.traverse_util.flatten_dict(params, sep="/")
  assert not updates["encoder/norm_stem/scale"].any() and not updates["encoder/norm_stem/bias"].any()
  np.testing.assert_allclose(updates["rpn/conv/kernel"], -0.1 * before["rpn/conv/kernel"], rtol=1e-6)


def test_predictions_are_those_of_the_network():
  method, (params, state, _), _ = program()
  detector = method.abilities[ObjectDetector]
  rows = batch()
  found = jax.jit(detector.predict)(params, state, rows["image"], rows["image_size"])
  assert found.detections.boxes.shape == (BATCH, 5, 4) and found.masks.shape == (BATCH, 5, 28, 28)
  assert detector.num_classes == CLASSES
  assert (found.detections.boxes[0, :, 3] <= 28).all() and (found.detections.boxes[1, :, 2] <= 30).all()


@pytest.mark.parametrize("freeze", [0, 2])
def test_features_are_those_of_the_encoder(freeze):
  options = dict(batch_norm="frozen", freeze=2) if freeze else {}
  method, (params, state, _), _ = program(**options)
  weights = frozen_parts.whole(params, state)
  encoder = models.make("resnet10", width=8)
  own = weights._replace(params=weights.params["encoder"], model_state=weights.model_state["encoder"])
  images = batch()["image"]
  np.testing.assert_array_equal(method.encode(params, state, images), encoder.apply(own, images)[0])


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(freeze=2), "freeze is 2, but the BatchNorm of the encoder is 'trained'; use .*batch_norm='frozen'"),
    (dict(freeze=6, batch_norm="frozen"), "freeze is 6; use a number of parts of the encoder, 0 to 5"),
    (dict(proposals=(3,)), r"proposals is \(3,\); use two positive numbers"),
    (dict(before=(0, 3)), r"before is \(0, 3\); use two positive numbers"),
    (dict(rois=0), "rois is 0; use a positive number"),
    (dict(least_score=1.0), "least_score is 1.0; use a probability"),
    (dict(anchor_scale=0.0), "anchor_scale is 0.0; use a positive factor"),
    (dict(kind="c5"), "config.method.kind is 'c5'.*c4"),
  ],
)
def test_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_data_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="needs boxes of every image.*use config.host.name='image_boxes'"):
    make(masks=False, elements=image(Frame(SIDE)).elements)
  boxes = {name: spec for name, spec in ELEMENTS.items() if name != "boxes_mask"}
  with pytest.raises(
    ValueError, match="needs boxes and boxes_mask of .*use config.host.name='image_instances'"
  ):
    make(elements=boxes)
  with pytest.raises(ValueError, match="needs the stages of a ResNet"):
    encoder = models.make("vit_tiny", image_size=32)
    methods.make("detection", encoder, data(), masks=True)
  with pytest.raises(ValueError, match="the data has 0 classes"):
    methods.make("detection", models.make("resnet10", width=8), data(classes=0), masks=True)
