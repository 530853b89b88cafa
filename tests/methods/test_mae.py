"""The masked autoencoder, compared with an independent computation, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses, methods, models
from ssl_jax.abilities import Restorer
from ssl_jax.core import DataSpec
from ssl_jax.models import patches
from ssl_jax.models.normalize import NORMALIZE
from tests.models import transformer

DATA = DataSpec(num_examples=1000, num_classes=10, batch_size=4)
IMAGES = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
KEY = jax.random.key(3)
DECODER = dict(decoder_width=8, decoder_depth=2, decoder_heads=2)
ENCODER = dict(width=16, depth=2, heads=4, patch=4, normalize="cifar10")


def make(*, encoder=(), **options):
  return methods.make(
    "mae", models.make("vit", **{**ENCODER, **dict(encoder)}), DATA, **{**DECODER, **options}
  )


def params_of(method):
  """Random weights, none of which are still 0 or 1."""
  leaves, tree = jax.tree.flatten(jax.jit(method.init)(jax.random.key(1), {"image": IMAGES}).params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  return tree.unflatten([leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)])


def loss_of(method, key=KEY):
  return jax.jit(
    lambda params, images: method.loss(params, {"encoder": {}, "decoder": {}}, (), {"image": images}, key)[0]
  )


def order_of(key=KEY, ratio=0.75, masking="random"):
  """The masks that `loss` draws from its key."""
  return np.asarray(patches.random_order(jax.random.split(key)[0], 4, (4, 4), ratio, masking))


def normalized(images) -> np.ndarray:
  mean, std = (np.asarray(v) for v in NORMALIZE["cifar10"])
  return (np.asarray(images, np.float64) - mean) / std


@pytest.mark.parametrize(
  "norm_pix, ratio, masking, visible",
  [(True, 0.75, "random", 4), (False, 0.75, "random", 4), (False, 0.5, "block", 8), (True, 0.75, "grid", 4)],
)
def test_loss_is_the_papers(norm_pix, ratio, masking, visible):
  method = make(norm_pix=norm_pix, mask_ratio=ratio, masking=masking)
  params = params_of(method)
  plain, order = jax.device_get(params), order_of(ratio=ratio, masking=masking)
  expected = np.mean(
    [
      transformer.mae_loss(
        image, plain, order[i], visible=visible, patch=4, encoder_heads=4, decoder_heads=2, norm_pix=norm_pix
      )
      for i, image in enumerate(normalized(IMAGES))
    ]
  )
  np.testing.assert_allclose(loss_of(method)(params, IMAGES), expected, rtol=1e-5)


@pytest.mark.parametrize(
  "encoder, parameters", [("vit_base", 26_109_184), ("vit_large", 26_240_256), ("vit_huge", 26_309_708)]
)
def test_decoder_has_the_published_size(encoder, parameters):
  method = methods.make("mae", models.make(encoder), DATA)
  made = jax.eval_shape(method.init, jax.random.key(0), {"image": jnp.zeros((2, 224, 224, 3))})
  side = 224 // models.make(encoder).module.patch
  table = (side * side + 1) * 512  # the released code counts its fixed positions
  assert sum(leaf.size for leaf in jax.tree.leaves(made.params["decoder"])) + table == parameters


def test_zero_prediction_costs_the_variance():
  rows = jax.random.normal(jax.random.key(0), (2, 5, 768)) * 3 + 1
  mean, deviation = losses.patch_statistics(rows)
  error = losses.patch_error(jnp.zeros_like(rows), (rows - mean) / deviation)
  variance = np.asarray(rows, np.float64).var(-1, ddof=1)
  np.testing.assert_allclose(error, 767 / 768 * variance / (variance + 1e-6), rtol=1e-5)
  assert float(error.mean()) == pytest.approx(0.998698, abs=2e-6)
  np.testing.assert_array_equal(losses.patch_error(rows, rows), np.zeros((2, 5)))


def test_constant_patches_stay_finite():
  mean, deviation = losses.patch_statistics(jnp.full((1, 2, 12), 0.3))
  np.testing.assert_allclose(deviation, np.full((1, 2, 1), 1e-3), rtol=1e-4)
  np.testing.assert_allclose(mean, np.full((1, 2, 1), 0.3), rtol=1e-6)


def test_pixels_of_removed_patches_are_targets_only_and_those_of_visible_ones_input_only():
  method = make(norm_pix=False)
  params, order = params_of(method), order_of()
  zero = jax.tree.map(jnp.zeros_like, params)  # predicts 0 for every input
  visible, removed = (np.zeros((4, 16), bool) for _ in range(2))
  np.put_along_axis(visible, order[:, :4], True, axis=1)
  removed = ~visible
  change = lambda where: jnp.where(
    jnp.repeat(jnp.repeat(where.reshape(4, 4, 4), 4, 1), 4, 2)[..., None], 0.9, IMAGES
  )
  loss = loss_of(method)
  assert loss(zero, change(visible)) == loss(zero, IMAGES) != loss(zero, change(removed))
  assert loss(params, change(visible)) != loss(params, IMAGES)


def test_masks_differ_between_images_and_steps():
  assert len(np.unique(order_of()[:, :4], axis=0)) == 4
  assert (order_of() != order_of(jax.random.key(4))).any()


def test_token_counts_of_vit_base():
  method = methods.make("mae", models.make("vit_base"), DATA)
  made = jax.eval_shape(method.init, jax.random.key(0), {"image": jnp.zeros((2, 224, 224, 3))})
  text = str(
    jax.make_jaxpr(
      lambda params: method.loss(
        params, {"encoder": {}, "decoder": {}}, (), {"image": jnp.zeros((2, 224, 224, 3))}, jax.random.key(0)
      )[0]
    )(made.params)
  )
  assert "2,50,768" in text and "2,197,512" in text and "2,197,768" not in text


def test_backward_pass_scatters_nothing():
  method = make()
  params = params_of(method)
  loss = lambda params: method.loss(
    params, {"encoder": {}, "decoder": {}}, (), {"image": IMAGES}, jax.random.key(3)
  )[0]
  assert "scatter" not in str(jax.make_jaxpr(jax.grad(loss))(params))
  text = jax.jit(jax.grad(loss)).lower(params).as_text()
  assert "scatter" not in text and "gather" in text


@pytest.mark.parametrize("norm_pix", [True, False])
def test_reconstruction_shows_what_was_seen_and_pastes_it(norm_pix):
  method = make(norm_pix=norm_pix)
  params = params_of(method)
  made = jax.jit(method.abilities[Restorer].reconstruct, static_argnames="mask_ratio")(
    params, {}, IMAGES, jax.random.key(5), mask_ratio=0.5
  )
  order = np.asarray(patches.random_order(jax.random.key(5), 4, (4, 4), 0.5))
  rows = {name: np.asarray(patches.patchify(value, 4)) for name, value in made._asdict().items()}
  true = np.asarray(patches.patchify(IMAGES, 4))
  for i in range(4):
    seen, hidden = order[i, :8], order[i, 8:]
    np.testing.assert_allclose(rows["seen"][i, seen], true[i, seen], atol=1e-5)
    np.testing.assert_allclose(rows["seen"][i, hidden], 0.5, atol=1e-6)
    np.testing.assert_allclose(rows["pasted"][i, seen], true[i, seen], atol=1e-5)
    np.testing.assert_array_equal(rows["pasted"][i, hidden], rows["predicted"][i, hidden])


def test_reconstruction_of_normalised_pixels_has_the_true_patchs_statistics():
  """An exact prediction of a normalised patch must be shown as that patch; zero weights predict its mean."""
  method = make(norm_pix=True)
  zero = jax.tree.map(jnp.zeros_like, params_of(method))
  made = method.abilities[Restorer].reconstruct(zero, {}, IMAGES, jax.random.key(5))
  pixels = np.asarray(patches.patchify(jnp.asarray(normalized(IMAGES), jnp.float32), 4))
  flat = np.broadcast_to(pixels.mean(-1, keepdims=True), pixels.shape)
  mean, std = (np.asarray(v) for v in NORMALIZE["cifar10"])
  expected = np.asarray(patches.unpatchify(jnp.asarray(flat), 4, (4, 4))) * std + mean
  np.testing.assert_allclose(made.predicted, expected.clip(0, 1), atol=1e-5)


def test_visible_mean_error_is_that_of_a_flat_guess():
  method, order = make(norm_pix=False), order_of()
  _, aux = method.loss(
    params_of(method), {"encoder": {}, "decoder": {}}, (), {"image": IMAGES}, jax.random.key(3)
  )
  rows = np.stack([transformer.patchify(image, 4) for image in normalized(IMAGES)]).reshape(4, 16, 16, 3)
  errors = [np.square(rows[i, order[i, 4:]] - rows[i, order[i, :4]].mean((0, 1))).mean() for i in range(4)]
  assert float(aux.metrics["visible_mean_error"].value()) == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(mask_ratio=1.0), r"mask_ratio is 1.0; use a fraction in \(0, 1\), such as 0.75"),
    (dict(mask_ratio=-0.1), "mask_ratio is -0.1"),
    (
      dict(decoder_heads=3),
      "config.method.decoder_heads 3 does not divide config.method.decoder_width 8; use 2 or 4 heads",
    ),
    (dict(decoder_depth=0), "decoder_depth 0 and decoder_heads 2 must be positive"),
    (dict(encoder=dict(pool="fc_norm")), "config.encoder.pool 'fc_norm' is for fine-tuning"),
    (dict(masking="blok"), "config.method.masking is 'blok'; did you mean 'block'"),
    (dict(mask_ration=0.5), "config.method.mask_ration is unknown; did you mean 'mask_ratio'"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_other_encoders_are_refused_with_those_that_fit():
  with pytest.raises(
    ValueError, match="needs an encoder that can leave patches out; use config.encoder.name='vit_base'"
  ):
    methods.make("mae", models.make("resnet18"), DATA)
