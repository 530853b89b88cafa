"""Colorization: the targets, the loss, the enlargement of maps, and the prior from the data to the config."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import PretextTask, Restorer
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec, Weights
from ssl_jax.methods import colorization
from ssl_jax.methods.pretext import cielab, colour_bins
from ssl_jax.run.assembly import open_data
from ssl_jax.run.prepare import prepare

DATA = DataSpec(100, 10, 8)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))
PRIOR = tuple(float(v) for v in np.random.default_rng(3).dirichlet(np.full(313, 0.3)))


def make(**options):
  return methods.make(
    "colorization", models.make("resnet10", width=8, stem="small", output_stride=4), DATA, **options
  )


@pytest.fixture(scope="module")
def started():
  method = make(prior=PRIOR)
  return method, jax.jit(method.init)(jax.random.key(0), {"image": IMAGES})


def test_a_grey_image_costs_nothing_and_moves_nothing(started):
  method, start = started
  grey = cielab.lightness(IMAGES)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda p, x: method.loss(p, start.model_state, (), {"image": x}, jax.random.key(0))[0])
  )(start.params, grey)
  assert float(value) == 0 and not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))


def test_loss_is_that_of_a_recomputation(started):
  """The loss in numpy: the input is the lightness, every fourth pixel is a target with the weight of its
  nearest bin, and the loss is the mean over the locations.
  """
  method, start = started
  bins = colour_bins.make_bins(PRIOR)
  value = method.abilities[PretextTask].evaluate_task(start.params, start.model_state, IMAGES)["loss"]
  net = models.stack(
    models.last_map(models.make("resnet10", width=8, stem="small", output_stride=4)),
    models.network(models.heads.Linear(len(bins.centres))),
  )
  logits = np.asarray(
    net.apply(
      Weights(start.params, start.model_state), jnp.repeat(cielab.rgb_to_lab(IMAGES)[..., :1] / 100, 3, -1)
    )[0],
    np.float64,
  )
  assert logits.shape == (8, 4, 4, len(bins.centres))
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  ab = np.asarray(cielab.rgb_to_lab(IMAGES))[:, ::4, ::4, 1:]
  distance = np.linalg.norm(ab[..., None, :] - bins.centres, axis=-1)
  weights, wanted = colour_bins.class_weights(bins), np.zeros((8, 4, 4))
  for at in np.ndindex(8, 4, 4):
    near = np.argsort(distance[at])[:5]
    z = np.exp(-(distance[at][near] ** 2) / 50)
    wanted[at] = -weights[near[0]] * (z / z.sum() * log_p[at][near]).sum()
  np.testing.assert_allclose(value, wanted.mean((1, 2)), rtol=1e-3)


def test_without_a_prior_all_colours_weigh_the_same():
  method = make()
  start = jax.jit(method.init)(jax.random.key(0), {"image": IMAGES})
  flat = jax.tree.map(jnp.zeros_like, start.params["head"])
  scores = jax.jit(method.abilities[PretextTask].evaluate_task)(
    {**start.params, "head": flat}, start.model_state, IMAGES
  )
  np.testing.assert_allclose(scores["loss"], np.log(313), rtol=1e-5)  # uniform predictions
  np.testing.assert_allclose(scores["auc"], scores["auc_rare"], rtol=1e-5)
  assert not np.any(scores["accuracy"])  # no bin is more likely than the others


def test_area_under_the_curve_is_the_integral_over_thresholds(started):
  method, start = started
  scores = method.abilities[PretextTask].evaluate_task(start.params, start.model_state, IMAGES)
  error = np.linalg.norm(np.asarray(cielab.rgb_to_lab(IMAGES))[..., 1:], axis=-1)
  curve = [(error < t).mean((1, 2)) for t in np.linspace(0, 150, 3001)]
  np.testing.assert_allclose(scores["auc_grey"], np.trapezoid(curve, dx=0.05, axis=0) / 150, atol=2e-3)
  assert (np.asarray(scores["auc"]) > 0).all() and (np.asarray(scores["auc"]) < 1).all()


def test_cells_of_a_map_stand_on_their_pixels():
  ramp = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 4, 1))
  found = np.asarray(colorization.enlarge(ramp, 16, 16))[0, :, 0, 0]
  np.testing.assert_allclose(found, np.minimum(np.arange(16) / 4, 3))
  assert colorization.enlarge(ramp, 4, 4) is ramp


def test_reconstruction_keeps_the_lightness(started):
  method, start = started
  made = jax.jit(method.abilities[Restorer].reconstruct)(
    start.params, start.model_state, IMAGES, jax.random.key(0), temperature=1.0
  )
  np.testing.assert_array_equal(made.seen[..., 0], made.seen[..., 2])
  # Without training, the mean colour is near that of the prior, which is in the gamut for most lightnesses.
  found = np.asarray(cielab.rgb_to_lab(made.pasted))[..., 0]
  wanted = np.asarray(cielab.rgb_to_lab(IMAGES))[..., 0]
  assert np.median(np.abs(found - wanted)) < 0.5
  flat = np.asarray(cielab.rgb_to_lab(made.predicted))[..., 0]
  assert np.median(np.abs(flat - colorization.DISPLAYED)) < 0.5


def test_the_representation_does_not_see_colour(started):
  method, start = started
  encode = jax.jit(method.encode)
  # grey images of the same lightness
  grey = cielab.lab_to_rgb(cielab.rgb_to_lab(IMAGES) * jnp.array([1.0, 0, 0])[None, None, None])
  found, wanted = (encode(start.params, start.model_state, images) for images in (IMAGES, grey))
  assert np.abs(np.asarray(IMAGES - grey)).mean() > 0.1
  np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(prior=(1.0,)), "must be 313 fractions of pixels"),
    (dict(temperature=0.0), "config.method.temperature is 0.0; use a positive"),
    (dict(uniform=1.5), "uniform 1.5 a fraction in"),
    (dict(neighbours=0), "neighbours is 0; use 5"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_a_side_that_4_does_not_divide_is_refused(started):
  method, start = started
  with pytest.raises(ValueError, match="config.augment.size 18 is not a multiple of 4"):
    jax.eval_shape(
      method.abilities[PretextTask].evaluate_task, start.params, start.model_state, jnp.zeros((2, 18, 18, 3))
    )


CONFIG = check(
  TrainConfig,
  recipe(
    method=dict(name="colorization"),
    encoder=dict(name="resnet10"),
    augment=dict(name="none", views=1, size=16),
    optimizer=dict(learning_rate=0.1),
    data=dict(name="synthetic", split="train[:100]", size=16),
    batch_size=16,
    epochs=1.0,
  ),
)


def test_a_prior_is_counted_on_the_data_of_a_recipe(tmp_path, capsys):
  path = prepare(["colour_prior"], CONFIG, str(tmp_path / "deep" / "prior.json"))
  # the padded rows of the last batch do not count
  assert "25,600 pixels of 100 images" in capsys.readouterr().out
  found = json.loads(path.read_text())
  assert found["pixels"] == 100 * 16 * 16 and sum(found["colour_prior"]) == pytest.approx(1)
  source, _ = open_data(CONFIG)
  ab = np.concatenate(
    [
      np.asarray(cielab.rgb_to_lab(jnp.asarray(source[i]["image"], jnp.float32) / 255))[..., 1:].reshape(
        -1, 2
      )
      for i in range(100)
    ]
  )
  nearest = np.linalg.norm(ab[:, None] - colour_bins.TABLE[None], axis=-1).argmin(1)
  assert np.abs(np.bincount(nearest, minlength=313) / len(ab) - found["colour_prior"]).sum() < 1e-3
  assert len(colour_bins.read_prior(path)) == 313


@pytest.mark.parametrize(
  "words, config, output, message",
  [
    (["colour_priors"], CONFIG, "x.json", "takes one word; did you mean 'colour_prior'"),
    (["colour_prior"], None, "x.json", "needs --config"),
    (["colour_prior"], CONFIG, "x.txt", "x.txt is not a .json file"),
  ],
)
def test_refusals_of_prepare(words, config, output, message):
  with pytest.raises(ValueError, match=message):
    prepare(words, config, output)
