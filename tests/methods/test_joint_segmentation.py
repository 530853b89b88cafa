"""Joint segmentation and reconstruction: both losses, the heads, and what adapts at test time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models, ttt
from ssl_jax.abilities import Adaptable, Masking, Restorer, Segmenter
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host
from ssl_jax.models import visibility
from ssl_jax.models.normalize import normalize
from ssl_jax.tasks.backbone import Backbone

SIZE, BATCH, CLASSES = 32, 4, 3
DATA = DataSpec(100, CLASSES, BATCH, host.image_mask(host.Frame(SIZE)).elements)
RESNET = dict(name="resnet10", width=8, stem="small", output_stride=8, norm="group")
VIT = dict(name="vit", width=16, depth=6, heads=2, patch=8)


def make(encoder=RESNET, **options):
  defaults = dict(head="fcn", channels=8, mask_patch=8, mask_ratio=0.75)
  return methods.make("joint_segmentation", models.make(**encoder), DATA, **{**defaults, **options})


def batch_of(seed=0):
  draw = np.random.default_rng(seed)
  mask = draw.integers(0, CLASSES, (BATCH, 4, 4), np.uint8).repeat(8, 1).repeat(8, 2)
  return {"image": jnp.asarray(draw.random((BATCH, SIZE, SIZE, 3), np.float32)), "mask": jnp.asarray(mask)}


@functools.cache
def started(encoder="resnet", **options):
  method = make({"resnet": RESNET, "vit": VIT}[encoder], **options)
  return method, jax.jit(method.init)(jax.random.key(0), batch_of())


def loss_of(method, start, batch):
  return jax.jit(method.loss)(start.params, start.model_state, (), batch, jax.random.key(2))


@pytest.mark.parametrize(
  "encoder, head, outputs",
  [("resnet", "fcn", 8 * 8 * 3), ("vit", "linear", 8 * 8 * 3), ("vit", "upernet", 12)],
)
def test_the_decoder_predicts_the_pixels_of_its_squares(encoder, head, outputs):
  """A head at the resolution of the maps predicts 8 x 8 pixels; UPerNet, four times as fine, 2 x 2."""
  options = {} if head == "linear" else {"channels": 8}
  method, start = started(encoder, head=head, **{"channels": 0, **options})
  widths = {
    part: [
      leaf.shape[1]
      for path, leaf in jax.tree_util.tree_leaves_with_path(start.params[part])
      if jax.tree_util.keystr(path).endswith("['classes']['kernel']")
    ]
    for part in ("head", "decoder")
  }
  assert set(widths["head"]) == {CLASSES} and widths["decoder"] == [outputs]
  reconstruct = jax.jit(method.abilities[Restorer].reconstruct)
  found = reconstruct(start.params, start.model_state, batch_of()["image"], jax.random.key(0))
  assert all(part.shape == (BATCH, SIZE, SIZE, 3) for part in found)
  seen = ~(found.seen == 0.5).all(-1)
  np.testing.assert_array_equal(found.pasted[seen], batch_of()["image"][seen])


def test_the_loss_is_the_sum_of_both():
  method, start = started()
  batch = batch_of()
  value, aux = loss_of(method, start, batch)
  double, _ = loss_of(make(weight=2.0), start, batch)
  restoration = float(aux.metrics["restoration"].value())
  assert float(double - value) == pytest.approx(restoration, rel=1e-4)
  without = {**batch, "mask": jnp.full_like(batch["mask"], 255)}
  assert float(loss_of(method, start, without)[0]) == pytest.approx(restoration, rel=1e-5)


def test_classes_are_learned_from_whole_images_and_pixels_from_masked_ones():
  """Other masks change the error of the pixels, and nothing in the loss of the classes."""
  method, start = started()
  # The weights of the visibility are zero at first, so that masks are seen by their colour alone.
  step = jax.jit(method.loss)
  found = [step(start.params, start.model_state, (), batch_of(), jax.random.key(i)) for i in (2, 3)]
  restored = [float(aux.metrics["restoration"].value()) for _, aux in found]
  classes = [float(value) - error for (value, _), error in zip(found, restored)]
  assert restored[0] != restored[1] and classes[0] == pytest.approx(classes[1], abs=1e-5)


def test_the_error_is_that_of_all_or_of_the_masked_pixels():
  batch, key = batch_of(), jax.random.key(5)
  for loss_on in ("all", "masked"):
    method = make(loss_on=loss_on)
    _, start = started()
    adaptable = method.abilities[Adaptable]
    images, hidden = adaptable.make_task(key, batch)
    found = jax.jit(adaptable.loss)(start.params, start.model_state, (images, hidden))
    # What the untrained decoder predicts is near zero, the mean colour.
    squares = jnp.square(normalize(images, "imagenet")).mean(-1)
    masked = visibility.at_pixels(hidden, 8, (SIZE, SIZE)).astype(jnp.float32)
    counted = masked if loss_on == "masked" else jnp.ones_like(squares)
    expected = (squares * counted).sum((1, 2)) / counted.sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=0.2)
    assert hidden.mean() == pytest.approx(0.75)


def test_a_trained_segmenter_goes_on_as_it_was():
  """With the segmenter's weights and zeros for the visibility, the logits are those of the segmenter."""
  method, start = started()
  plain = methods.make("segmentation", models.make(**RESNET), DATA, head="fcn", channels=8)
  trained = jax.jit(plain.init)(jax.random.key(3), batch_of())
  wide = visibility.widen(trained.params["encoder"], start.params["encoder"])
  params = {**start.params, "encoder": wide, "head": trained.params["head"]}
  state = {**start.model_state, **trained.model_state}
  images = batch_of()["image"]
  expected = jax.jit(plain.abilities[Segmenter].predict)(trained.params, trained.model_state, images)
  found = jax.jit(method.abilities[Segmenter].predict)(params, state, images)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_head_of_the_classes_does_not_move_at_test_time():
  """Weight decay would move it even without a gradient."""
  method, start = started()
  adaptable = method.abilities[Adaptable]
  trainable = ttt.select_params(start.params, adaptable.trainable)
  assert not jax.tree.leaves(trainable["head"]) and jax.tree.leaves(trainable["decoder"])
  rule = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1e-2))
  inner = ttt.make_adapt(adaptable, lambda key, batch: batch, rule, steps=1, copies=BATCH)
  sample = {"image": batch_of()["image"][0]}
  state = jax.jit(inner.begin)(start, trainable, jax.random.key(0), sample, 0)
  result, moved = jax.jit(inner.finish)(start, trainable, jax.jit(inner.step)(start, state, 0))
  assert jax.tree.leaves(moved["head"]) == []
  changed = jax.tree.map(lambda new, old: bool((new != old).any()), moved, trainable)
  assert all(jax.tree.leaves(changed["decoder"])) and any(jax.tree.leaves(changed["encoder"]))
  assert (result.curve[0] != result.curve[1]).any()


def test_the_head_of_the_classes_has_no_gradient_at_test_time():
  method, start = started()
  adaptable = method.abilities[Adaptable]
  task = adaptable.make_task(jax.random.key(5), batch_of())
  gradient = jax.jit(jax.grad(lambda params: adaptable.loss(params, start.model_state, task).sum()))(
    start.params
  )
  moves = {name: any(bool(leaf.any()) for leaf in jax.tree.leaves(part)) for name, part in gradient.items()}
  assert moves == {"encoder": True, "decoder": True, "head": False}


def test_classes_are_predicted_with_a_visibility_of_ones():
  method, start = started()
  noisy = lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(2), leaf.shape)
  params = {**start.params, "encoder": jax.tree.map(noisy, start.params["encoder"])}
  predict = functools.partial(jax.jit(method.abilities[Segmenter].predict), params, start.model_state)
  images = batch_of()["image"]
  ones, zeros = (jnp.concatenate([images, jnp.full_like(images[..., :1], value)], -1) for value in (1.0, 0.0))
  np.testing.assert_array_equal(predict(images), predict(ones))
  assert np.abs(predict(zeros) - predict(ones)).max() > 1e-3


def test_padding_has_the_mean_colour():
  method, start = started()
  predict = functools.partial(jax.jit(method.abilities[Adaptable].predict), start.params, start.model_state)
  image = batch_of()["image"][:1]
  black, white = (image.at[:, 24:].set(value) for value in (0.0, 1.0))
  size = jnp.array([[24, SIZE]], jnp.int32)
  one, other = (predict({"image": part, "image_size": size}) for part in (black, white))
  np.testing.assert_array_equal(one, other)


def test_classes_of_masked_images_are_predicted():
  """With the masks of the reconstruction; what is masked plays no part, and neither does the padding."""
  method, start = started()
  masking, key = method.abilities[Masking], jax.random.key(3)
  batch = {
    "image": batch_of()["image"],
    "image_size": jnp.tile(jnp.array([[24, SIZE]], jnp.int32), (BATCH, 1)),
  }
  hidden = masking.hide(key, batch)
  assert set(hidden) == {"image"} and hidden["image"].shape == (BATCH, SIZE, SIZE, 4)
  seen = hidden["image"][..., 3]
  assert seen.mean() == pytest.approx(0.25) and set(np.unique(seen)) == {0, 1}
  inside = seen[:, :24].astype(bool)
  np.testing.assert_array_equal(hidden["image"][:, :24, :, :3][inside], batch["image"][:, :24][inside])
  other = {**batch, "image": batch["image"].at[:, 24:].set(0.0)}
  np.testing.assert_array_equal(masking.hide(key, other)["image"], hidden["image"])
  predict = functools.partial(jax.jit(method.abilities[Adaptable].predict), start.params, start.model_state)
  found = predict(hidden)
  assert found.shape == (BATCH, SIZE, SIZE, CLASSES) and (found != predict(batch)).any()


def test_self_training_moves_the_encoder_and_the_head_only_if_told():
  method, start = started()
  backbone = Backbone(Weights(start.params, start.model_state), method, {})
  adaptable = ttt.with_objective(backbone, "self_training", confidence=0.0).ability(Adaptable, "")
  rule = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1e-1))
  inner = ttt.make_adapt(adaptable, lambda key, batch: batch, rule, steps=1, copies=BATCH)
  for names, moving in ((adaptable.trainable, {"encoder"}), (("encoder", "head"), {"encoder", "head"})):
    first = ttt.select_params(start.params, names)
    state = jax.jit(inner.begin)(start, first, jax.random.key(0), {"image": batch_of()["image"][0]}, 0)
    after = jax.jit(inner.step)(start, state, 0)
    assert np.isfinite(after.losses).all() and after.losses[0] > 0
    assert {name for name in first if jax.tree.leaves(after.trainable[name])} == moving
    for name in moving:
      assert any(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), first[name], after.trainable[name]))
      )


@pytest.mark.parametrize(
  "encoder, options, message",
  [
    (dict(RESNET, norm="batch"), {}, "config.encoder.norm is 'batch'; use 'group'"),
    (RESNET, dict(mask_ratio=1.0), "config.method.mask_ratio is 1.0; use a fraction between 0 and 1"),
    (RESNET, dict(mask_patch=0), "config.method.mask_patch is 0"),
    (RESNET, dict(weight=0.0), "config.method.weight is 0.0; use a positive one, or method 'segmentation'"),
    (RESNET, dict(auxiliary=-1.0), "config.method.auxiliary is -1.0"),
  ],
)
def test_wrong_options_are_refused(encoder, options, message):
  with pytest.raises(ValueError, match=message):
    make(encoder, **options)
