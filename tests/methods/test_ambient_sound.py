"""Ambient sound: the losses, and what the method asks of its data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import SoundPredictor
from ssl_jax.core import DataSpec
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.methods import ambient_sound

IMAGES = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))
BITS = jax.random.bernoulli(jax.random.key(1), 0.5, (8, 3))
ELEMENTS = {"image": ShapeDtype((16, 16, 3), np.uint8), "bits": ShapeDtype((3,), np.bool_)}


def make(target: str):
  encoder = models.make("resnet10", width=8, stem="small")
  return methods.make("ambient_sound", encoder, DataSpec(100, 5, 8, ELEMENTS), target=target)


def test_the_loss_of_bits_is_the_mean_of_logistic_losses():
  logits = jnp.array([[0.0, 2.0, -1.0]])
  loss, accuracy = ambient_sound.score_bits(logits, {"bits": jnp.array([[True, True, True]])})
  wanted = (np.log(2) + np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 3
  np.testing.assert_allclose(loss, [wanted], rtol=1e-6)
  np.testing.assert_allclose(accuracy, [1 / 3], rtol=1e-6)


def test_the_loss_of_clusters_is_the_cross_entropy():
  loss, accuracy = ambient_sound.score_clusters(jnp.zeros((2, 5)), {"label": jnp.array([0, 4])})
  np.testing.assert_allclose(loss, np.log(5), rtol=1e-6)
  np.testing.assert_array_equal(accuracy, [True, False])


@pytest.mark.parametrize("target, width", [("clusters", 5), ("bits", 3)])
def test_an_untrained_network_starts_near_chance_and_predicts_what_it_was_told(target, width):
  method = make(target)
  batch = {"image": IMAGES, "label": jnp.zeros(8, jnp.int32), "bits": BITS}
  params, model_state, extra = method.init(jax.random.key(0), batch)
  loss, _ = jax.jit(method.loss)(params, model_state, extra, batch, jax.random.key(1))
  assert float(loss) == pytest.approx(np.log(5 if target == "clusters" else 2), abs=0.1)
  predictor = methods.ability(method, SoundPredictor, owner="", user="")
  assert predictor.predict(params, model_state, IMAGES).shape == (8, width)
  examples = predictor.make_task(jax.random.key(0), batch)
  assert examples.targets.shape == (8, 1 if target == "clusters" else 3)
  np.testing.assert_array_equal(examples.inputs[:, 0], IMAGES)


def test_bits_need_a_host_transform_that_delivers_them():
  encoder = models.make("resnet10", width=8, stem="small")
  only = {"image": ELEMENTS["image"]}
  with pytest.raises(ValueError, match="target is 'bits', .* only image; use config.host.name='image_bits'"):
    methods.make("ambient_sound", encoder, DataSpec(100, 5, 8, only), target="bits")
  with pytest.raises(ValueError, match="predicts clusters, but the data set has 0 classes; use a data set"):
    methods.make("ambient_sound", encoder, DataSpec(100, 0, 8, only))
