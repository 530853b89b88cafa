import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import Segmenter
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host
from ssl_jax.models import segmentation

SIZE, BATCH, CLASSES = 32, 4, 3
DATA = DataSpec(100, CLASSES, BATCH, host.image_mask(host.Frame(SIZE)).elements)
RESNET = dict(name="resnet10", width=8, stem="small", output_stride=8)
VIT = dict(name="vit", width=16, depth=6, heads=2, patch=8)


def make(encoder=RESNET, data=DATA, **options):
  return methods.make("segmentation", models.make(**encoder), data, **options)


def batch_of(seed=0):
  draw = np.random.default_rng(seed)
  mask = draw.integers(0, CLASSES, (BATCH, 4, 4), np.uint8).repeat(8, 1).repeat(8, 2)
  image = (
    np.eye(CLASSES, dtype=np.float32)[mask] * 0.5 + draw.random((BATCH, SIZE, SIZE, 3), np.float32) * 0.5
  )
  mask[:, :4] = 255
  return {"image": jnp.asarray(image), "mask": jnp.asarray(mask)}


def loss_of(method, start, batch):
  return jax.jit(method.loss)(start.params, start.model_state, (), batch, jax.random.key(2))


@pytest.mark.parametrize(
  "encoder, head", [(RESNET, "fcn"), (RESNET, "linear"), (VIT, "upernet"), (VIT, "linear")]
)
def test_the_loss_is_the_mean_over_pixels_that_have_a_class(encoder, head):
  method, batch = make(encoder, head=head, auxiliary=0.0), batch_of()
  start = method.init(jax.random.key(0), batch)
  value, aux = loss_of(method, start, batch)
  changed = batch["mask"].at[:, :4].set(1)
  more, _ = loss_of(method, start, {**batch, "mask": changed})
  assert np.isfinite(value) and value > 0 and value != more
  assert 0 <= aux.metrics["pixel_accuracy"].value() <= 1
  logits = method.abilities[Segmenter].predict(start.params, start.model_state, batch["image"])
  assert logits.shape == (BATCH, SIZE, SIZE, CLASSES) and logits.dtype == jnp.float32


def test_a_batch_without_classes_has_loss_zero_and_no_gradient():
  method, batch = make(), batch_of()
  start = method.init(jax.random.key(0), batch)
  empty = {**batch, "mask": jnp.full_like(batch["mask"], 255)}
  value, gradient = jax.jit(
    jax.value_and_grad(lambda params: method.loss(params, start.model_state, (), empty, jax.random.key(2))[0])
  )(start.params)
  assert value == 0
  assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_the_loss_is_that_of_optax_at_the_resolution_of_the_mask():
  encoder, batch = models.make(**RESNET), batch_of()
  method = make(head="fcn_d8", auxiliary=0.25)
  start = method.init(jax.random.key(0), batch)
  value, aux = loss_of(method, start, batch)
  net = segmentation.segmenter(encoder, CLASSES, "fcn_d8")
  weights = Weights(start.params, start.model_state)
  apply = jax.jit(functools.partial(net.apply, train=True))
  out, state = apply(weights, batch["image"], key=jax.random.key(2))
  labels, counted = jnp.minimum(batch["mask"], CLASSES - 1).astype(jnp.int32), batch["mask"] != 255

  def mean(logits):
    full = jax.image.resize(logits, (BATCH, SIZE, SIZE, CLASSES), "linear", antialias=False)
    each = optax.softmax_cross_entropy_with_integer_labels(full, labels)
    return jnp.where(counted, each, 0).sum() / counted.sum().astype(jnp.float32)

  assert float(value) == pytest.approx(float(mean(out.logits) + 0.25 * mean(out.auxiliary)), rel=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), aux.model_state, state)


def test_a_frozen_encoder_does_not_change():
  method, batch = make(head="linear", frozen=True), batch_of()
  start = method.init(jax.random.key(0), batch)
  value, aux = loss_of(method, start, batch)
  for part in ("frozen", "encoder"):
    jax.tree.map(np.testing.assert_array_equal, aux.model_state[part], start.model_state[part])
  changed = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), aux.model_state["head"], start.model_state["head"]
  )
  assert any(jax.tree.leaves(changed))  # its BatchNorm learns the statistics of the features
  free = make(head="linear")
  weights = jax.tree.map(lambda leaf: leaf, {**start.params, **start.model_state["frozen"]})
  state = {name: start.model_state[name] for name in ("encoder", "head")}
  images = batch["image"]
  np.testing.assert_array_equal(
    method.encode(start.params, start.model_state, images), free.encode(weights, state, images)
  )
  predict = method.abilities[Segmenter].predict(start.params, start.model_state, images)
  np.testing.assert_array_equal(predict, free.abilities[Segmenter].predict(weights, state, images))


def test_it_learns_to_segment_colours():
  method, batch = make(), batch_of()
  params, state, _ = method.init(jax.random.key(0), batch)
  rule = optax.sgd(0.1, 0.9)

  @jax.jit
  def step(params, state, opt_state):
    (value, aux), gradient = jax.value_and_grad(method.loss, has_aux=True)(
      params, state, (), batch, jax.random.key(2)
    )
    updates, opt_state = rule.update(gradient, opt_state)
    return optax.apply_updates(params, updates), aux.model_state, opt_state, value

  opt_state, found = rule.init(params), []
  for _ in range(60):
    params, state, opt_state, value = step(params, state, opt_state)
    found.append(float(value))
  assert found[-1] < 0.3 * found[0], found
  predicted = method.abilities[Segmenter].predict(params, state, batch["image"]).argmax(-1)
  counted = batch["mask"] != 255
  assert (predicted == batch["mask"].astype(jnp.int32))[counted].mean() > 0.8


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="needs masks with classes, but the data has 0 classes"):
    make(data=DATA._replace(num_classes=0))
  with pytest.raises(
    ValueError, match="needs a mask for every image, but config.host.name delivers only image"
  ):
    make(data=DATA._replace(elements=host.image(host.Frame(SIZE)).elements))
  with pytest.raises(ValueError, match="config.method.auxiliary is -1.0"):
    make(auxiliary=-1.0)
  with pytest.raises(ValueError, match="config.method.head"):
    make(head="fnc")
