"""BatchNorm with the statistics of the images at hand: the limits, a formula, and what is left alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models.batch_statistics import has_batch_norm, mixed_statistics, with_batch_statistics
from ssl_jax.models.norm import BatchNorm

IMAGES = jax.random.uniform(jax.random.key(0), (5, 6, 6, 3))


class Two(nn.Module):
  """Two BatchNorms of maps and one of vectors; the second follows the first."""

  @nn.compact
  def __call__(self, x, *, train):
    x = nn.relu(BatchNorm(train, name="first")(x))
    x = nn.Conv(4, (3, 3), name="conv")(x)
    maps = BatchNorm(train, name="second")(x)
    return BatchNorm(train, name="vectors")(nn.relu(maps).mean((1, 2)))


def network():
  """Returns (network, weights whose statistics are not those of the images)."""
  net = models.network(Two())
  params, state = net.init(jax.random.key(1), IMAGES)
  leaves, tree = jax.tree.flatten(state)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  return net, Weights(params, tree.unflatten([jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves)]))


def predict(net):
  return lambda params, state, images: net.apply(Weights(params, state), images)[0]


def moments(x, axes=(0, 1, 2)):
  return x.mean(axes), x.var(axes)


def test_all_of_the_batch_is_training_and_none_of_it_is_evaluation():
  net, weights = network()
  function = predict(net)
  assert with_batch_statistics(function, 0.0) is function
  _, state = net.apply(weights, IMAGES, train=True)
  found = mixed_statistics(function, 1.0)(*weights, IMAGES)["batch_stats"]
  old = weights.model_state["batch_stats"]
  for name in ("first", "second"):
    for value in ("mean", "var"):
      expected = (state["batch_stats"][name][value] - 0.9 * old[name][value]) / 0.1
      np.testing.assert_allclose(found[name][value], expected, atol=1e-5)
      assert np.abs(expected - old[name][value]).max() > 1e-3


def test_a_layer_is_measured_behind_layers_that_are_mixed():
  """The formula of the paper, by hand: with a prior of 3 images and one test image a quarter is new."""
  net, weights = network()
  old, share = weights.model_state["batch_stats"], 0.25
  mix = lambda name, x: {
    key: 0.75 * old[name][key] + 0.25 * value for key, value in zip(("mean", "var"), moments(x))
  }
  first = mix("first", IMAGES)
  scaled = (IMAGES - first["mean"].reshape(1, 1, 1, -1)) / jnp.sqrt(
    first["var"].reshape(1, 1, 1, -1) + BatchNorm.epsilon
  )
  behind = nn.Conv(4, (3, 3)).apply({"params": weights.params["conv"]}, nn.relu(scaled))
  expected = {"first": first, "second": mix("second", behind), "vectors": old["vectors"]}
  found = jax.jit(mixed_statistics(predict(net), share))(*weights, IMAGES)
  for name, layer in expected.items():
    for key, value in layer.items():
      np.testing.assert_allclose(found["batch_stats"][name][key], value, rtol=1e-5, atol=1e-6)
  # The network in evaluation mode with these statistics is the network that mixes them itself.
  mixed = with_batch_statistics(predict(net), share)(*weights, IMAGES)
  np.testing.assert_allclose(mixed, predict(net)(weights.params, found, IMAGES), atol=1e-5)
  assert np.abs(mixed - predict(net)(*weights, IMAGES)).max() > 1e-3


def test_each_image_has_its_own_statistics():
  net, weights = network()
  one = with_batch_statistics(predict(net), 0.5)
  each = with_batch_statistics(predict(net), 0.5, each=True)(*weights, IMAGES)
  alone = jnp.concatenate([one(*weights, IMAGES[i : i + 1]) for i in range(5)])
  np.testing.assert_allclose(each, alone, atol=1e-5)
  assert np.abs(each - one(*weights, IMAGES)).max() > 1e-3


def test_gradients_flow_through_the_statistics_of_the_batch():
  """The gradient of training, with statistics that were not constants."""
  net, weights = network()
  value = lambda params: with_batch_statistics(predict(net), 1.0)(params, weights.model_state, IMAGES)
  found = jax.grad(lambda params: jnp.square(value(params)).sum())(weights.params)
  # A factor of the convolution's kernel cancels in the BatchNorm behind it, so its gradient vanishes.
  along = sum(jnp.sum(g * p) for g, p in zip(*map(jax.tree.leaves, (found["conv"], weights.params["conv"]))))
  assert abs(along) < 1e-3 < jnp.abs(found["conv"]["kernel"]).max()


def test_networks_without_such_statistics():

  class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      return nn.Dense(3)(x.mean((1, 2)))

  net = models.network(Plain())
  params, state = net.init(jax.random.key(0), IMAGES)
  assert not has_batch_norm(state) and has_batch_norm(network()[1].model_state)
  with pytest.raises(ValueError, match="no BatchNorm of feature maps is used"):
    mixed_statistics(predict(net), 0.5)(params, state, IMAGES)
