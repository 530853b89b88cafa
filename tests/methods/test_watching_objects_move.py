"""Watching objects move: the loss by hand, what is ignored, shapes, and what the network is tied to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses, methods, models
from ssl_jax.abilities import Segmenter
from ssl_jax.core import DataSpec
from ssl_jax.data import host

SIZE, BATCH = 32, 4
DATA = DataSpec(100, 2, BATCH, host.image_mask(host.Frame(SIZE)).elements)
RESNET = dict(name="resnet10", width=8, stem="small")
SMALL = dict(size=SIZE, channels=8, output=14)


def make(encoder=RESNET, data=DATA, **options):
  return methods.make("watching_objects_move", models.make(**encoder), data, **{**SMALL, **options})


def batch_of(seed=0):
  draw = np.random.default_rng(seed)
  mask = draw.integers(0, 2, (BATCH, 4, 4), np.uint8).repeat(8, 1).repeat(8, 2)
  mask[:, :4] = 255
  return {"image": jnp.asarray(draw.random((BATCH, SIZE, SIZE, 3), np.float32)), "mask": jnp.asarray(mask)}


@functools.cache
def started():
  method, batch = make(), batch_of()
  return method, batch, method.init(jax.random.key(0), batch)


def value_and_gradient(method, start, batch, params=None):
  loss = lambda params: method.loss(params, start.model_state, (), batch, jax.random.key(2))
  return jax.jit(jax.value_and_grad(loss, has_aux=True))(params or start.params)


def test_the_loss_of_a_pixel_by_hand():
  logits = jnp.array([[[0.0, 2.0, -2.0, 5.0]]])
  loss, valid = losses.pixel_logistic(logits, jnp.array([[[0, 1, 1, 255]]], jnp.uint8))
  wanted = [[[np.log(2), np.log1p(np.exp(-2)), np.log1p(np.exp(2)), 0]]]
  np.testing.assert_allclose(loss, wanted, rtol=1e-6)
  assert valid.tolist() == [[[True, True, True, False]]]
  far = jnp.array([[[1e4, -1e4]]])
  assert losses.pixel_logistic(far, jnp.array([[[0, 0]]], jnp.uint8))[0].tolist() == [[[1e4, 0.0]]]


def test_logits_of_zero_have_the_loss_ln_2():
  method, batch, start = started()
  top = {name: jax.tree.map(jnp.zeros_like, leaf) for name, leaf in start.params["head"].items()}
  (value, aux), _ = value_and_gradient(method, start, batch, {**start.params, "head": top})
  assert value == pytest.approx(np.log(2), abs=1e-6)
  assert aux.metrics["iou"].value() == 0


def test_what_is_ignored_changes_neither_loss_nor_gradient():
  method, batch, start = started()
  (value, _), gradient = value_and_gradient(method, start, batch)
  more = batch["mask"].at[:, :4].set(1)
  assert value != value_and_gradient(method, start, {**batch, "mask": more})[0][0]
  logits = jax.random.normal(jax.random.key(0), batch["mask"].shape)
  other = jnp.where(batch["mask"] == 255, logits + 3, logits)
  loss = lambda logits: losses.pixel_logistic(logits, batch["mask"])[0].sum()
  assert loss(logits) == loss(other)
  np.testing.assert_array_equal(jax.grad(loss)(logits), jax.grad(loss)(other))
  kernel = (
    gradient["encoder"]["stem"] if "stem" in gradient["encoder"] else jax.tree.leaves(gradient["encoder"])[0]
  )
  assert any(np.any(leaf) for leaf in jax.tree.leaves(kernel))  # it reaches the first layer


def test_nothing_labelled_is_exactly_zero_with_finite_gradients():
  method, batch, start = started()
  nothing = {**batch, "mask": jnp.full_like(batch["mask"], 255)}
  (value, aux), gradient = value_and_gradient(method, start, nothing)
  assert value == 0 and all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))
  assert aux.metrics["pixel_accuracy"].count == 0


def test_the_mean_is_over_the_pixels_of_the_batch():
  """An image with few labels counts little, one without any not at all."""
  method, batch, start = started()
  mask = batch["mask"].at[2:].set(255).at[1, 8:].set(255)
  (value, aux), _ = value_and_gradient(method, start, {**batch, "mask": mask})
  accuracy = aux.metrics["pixel_accuracy"]
  assert float(accuracy.count) == (np.asarray(mask) != 255).sum()
  other = {**batch, "mask": mask, "image": batch["image"].at[2:].set(0.0)}  # seen by BatchNorm only
  assert np.isfinite(value) and value_and_gradient(method, start, other)[0][0] != value
  apart = [
    float(value_and_gradient(method, start, {**batch, "mask": mask.at[1 - i].set(255)})[0][0]) for i in (0, 1)
  ]
  weights = [(np.asarray(mask[i]) != 255).sum() for i in (0, 1)]
  assert value == pytest.approx(np.average(apart, weights=weights), rel=1e-5)


def test_logits_have_the_size_of_the_mask_and_two_classes():
  method, batch, start = started()
  segmenter = method.abilities[Segmenter]
  logits = segmenter.predict(start.params, start.model_state, batch["image"])
  assert logits.shape == (BATCH, SIZE, SIZE, 2) and logits.dtype == jnp.float32 and not logits[..., 0].any()
  assert segmenter.size == (SIZE, SIZE)
  careful = make(threshold=0.8).abilities[Segmenter].predict(start.params, start.model_state, batch["image"])
  np.testing.assert_array_equal(careful[..., 1], logits[..., 1])
  assert careful[0, 0, 0, 0] == pytest.approx(np.log(4))


def test_the_published_head_has_the_published_sizes():
  """56x56 logits of an image of 227 pixels become a mask of 112x112."""
  data = DATA._replace(elements=host.image_mask(host.Frame(227)).elements)
  encoder = dict(name="caffenet", fc=())
  method = make(encoder, data, size=227, layer="conv5", channels=128, output=56)
  batch = {
    "image": jax.ShapeDtypeStruct((2, 227, 227, 3), jnp.float32),
    "mask": jax.ShapeDtypeStruct((2, 112, 112), jnp.uint8),
  }
  start = jax.eval_shape(method.init, jax.random.key(0), batch)
  shapes = sorted(leaf.shape for leaf in jax.tree.leaves(start.params["head"]))
  assert shapes == [(1, 1, 256, 128), (128,), (56 * 56,), (128 * 13 * 13, 56 * 56)]
  value, aux = jax.eval_shape(method.loss, *start, batch, jax.random.key(0))
  assert value.shape == () and set(aux.metrics) == {"iou", "pixel_accuracy"}


def test_pictures_show_the_labels():
  method, batch, _ = started()
  examples = method.abilities[Segmenter].make_task(jax.random.key(0), batch)
  assert examples.input_names == ("labels",) and examples.inputs.shape == (BATCH, 1, SIZE, SIZE, 3)
  shades = np.array([0.0, 1.0, 0.5])[np.searchsorted([0, 1, 255], batch["mask"])]
  np.testing.assert_array_equal(examples.inputs[:, 0, :, :, 2], shades)


def test_a_frozen_encoder_is_not_trained():
  method, batch = make(frozen=True), batch_of()
  start = method.init(jax.random.key(0), batch)
  assert set(start.params) == {"head"}
  (value, aux), gradient = value_and_gradient(method, start, batch)
  assert np.isfinite(value) and all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
  jax.tree.map(np.testing.assert_array_equal, aux.model_state["encoder"], start.model_state["encoder"])
  assert jax.tree.structure(aux.model_state) == jax.tree.structure(start.model_state)
  free, _, plain = started()
  np.testing.assert_allclose(
    method.encode(start.params, start.model_state, batch["image"]),
    free.encode(plain.params, plain.model_state, batch["image"]),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(output=0), "config.method.output is 0; use a positive number"),
    (dict(threshold=1.0), "config.method.threshold is 1.0; use a probability between 0 and 1"),
    (dict(dropout=1.0), r"config.method.dropout is 1.0; use a fraction in \[0, 1\)"),
    (dict(encoder=dict(name="caffenet")), r"config.encoder.fc is \(4096, 4096\), but .* use \(\)"),
    (
      dict(data=DATA._replace(elements=host.image(host.Frame(SIZE)).elements)),
      "needs a mask for every image",
    ),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_refusals_when_traced():
  batch = batch_of()
  with pytest.raises(
    ValueError, match="config.method.size is 48, but .* images of 32x32 pixels; use the same"
  ):
    make(size=48).init(jax.random.key(0), batch)
  with pytest.raises(
    ValueError, match="config.method.layer: the encoder has no map 'conv5'; known: .*stage4"
  ):
    make(layer="conv5").init(jax.random.key(0), batch)
