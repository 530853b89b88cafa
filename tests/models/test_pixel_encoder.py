"""The encoder of policies: the published shapes, initial values, and maps of crops by four passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import pixel_encoder

KEY = jax.random.key(0)


def small(**options):
  return models.make("pixel_encoder", **{**dict(depth=4, channels=8, features=10), **options})


def test_the_published_network_has_maps_of_21_pixels():
  encoder = models.make("pixel_encoder")
  images = jax.ShapeDtypeStruct((2, 84, 84, 9), jnp.float32)
  shapes = jax.eval_shape(lambda x: encoder.apply(encoder.init(KEY, x), x, pyramid=True)[0], images)
  assert {name: leaf.shape for name, leaf in shapes.items()}["conv11"] == (2, 21, 21, 32)
  assert shapes["conv1"].shape == (2, 41, 41, 32) and shapes["conv8"].shape == (2, 27, 27, 32)
  weights = jax.eval_shape(encoder.init, KEY, images)
  assert weights.params["linear"]["kernel"].shape == (21 * 21 * 32, 100)


def test_trunk_and_rest_are_the_whole():
  encoder = small()
  images = jax.random.uniform(KEY, (3, 20, 20, 9))
  weights = encoder.init(KEY, images)
  whole, _ = encoder.apply(weights, images)
  trunk, rest = models.split(encoder, "conv2")
  parts = [
    Weights({name: weights.params[name] for name in names}, {})
    for names in (("conv1", "conv2"), ("conv3", "conv4", "linear", "norm"))
  ]
  maps, _ = trunk.apply(parts[0], images)
  found, _ = rest.apply(parts[1], maps)
  np.testing.assert_allclose(found, whole, rtol=1e-6)
  assert found.shape == (3, 10) and np.abs(found).max() < 1


def test_convolutions_begin_as_orthogonal_matrices_at_the_centre():
  kernel = np.asarray(small().init(KEY, jnp.zeros((1, 20, 20, 9))).params["conv2"]["kernel"])
  np.testing.assert_allclose(kernel[1, 1] @ kernel[1, 1].T, 2 * np.eye(8), atol=1e-5)
  assert not kernel[0].any() and not kernel[1, 0].any()


@pytest.mark.parametrize("side, size", [(25, 18), (24, 17), (24, 16), (20, 20)])
def test_maps_of_32_crops_by_four_passes_equal_those_of_32_passes(side, size):
  encoder = small()
  image = jax.random.uniform(KEY, (side, side, 9))
  weights = encoder.init(KEY, jnp.zeros((1, size, size, 9)))
  # the kernels of training are not zero around their centre
  params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape), weights.params)
  offsets = jax.random.randint(KEY, (32, 2), 0, side - size + 1)

  def convolve(params, views):
    return encoder.apply(Weights(params, {}), views, until="conv4")[0]

  def at_once(params):
    return pixel_encoder.maps_of_crops(functools.partial(convolve, params), image, offsets, size)

  def one_by_one(params):
    cut = lambda offset: jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (size, size, 9))
    return convolve(params, jnp.stack([cut(offset) for offset in offsets]))

  pull = jax.random.normal(KEY, at_once(params).shape)
  found, gradient = jax.jit(jax.value_and_grad(lambda p: (pull * at_once(p)).mean()))(params)
  wanted, truth = jax.jit(jax.value_and_grad(lambda p: (pull * one_by_one(p)).mean()))(params)
  np.testing.assert_allclose(at_once(params), one_by_one(params), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
  for (path, leaf), true in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(truth)):
    np.testing.assert_allclose(leaf, true, rtol=1e-3, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_a_map_that_is_too_small_is_named():
  with pytest.raises(ValueError, match="2 x 2 pixels is too small for the convolution conv4; use fewer"):
    small().init(KEY, jnp.zeros((1, 14, 14, 9)))
