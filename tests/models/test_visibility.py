"""The fourth input channel: what it changes, and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import visibility
from ssl_jax.models.normalize import normalize

ENCODERS = {
  "resnet": dict(name="resnet10", width=8, stem="small", norm="group"),
  "vit": dict(name="vit", width=16, depth=1, heads=2, patch=8),
}
SIDE = 32


def images_of(seed=0):
  return jax.random.uniform(jax.random.key(seed), (2, SIDE, SIDE, 3))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_widened_network_computes_what_it_computed(kind):
  encoder = models.make(**ENCODERS[kind])
  seeing, images = visibility.seeing(encoder), images_of()
  old, new = encoder.init(jax.random.key(1), images), seeing.init(jax.random.key(1), images)
  before, after = encoder.apply(old, images)[0], seeing.apply(new, images)[0]
  np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)
  hidden = jnp.concatenate([images, jnp.zeros_like(images[..., :1])], -1)
  np.testing.assert_array_equal(seeing.apply(new, hidden)[0], after)  # its weights are zero


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_fourth_channel_is_read(kind):
  seeing, images = visibility.seeing(models.make(**ENCODERS[kind])), images_of()
  weights = seeing.init(jax.random.key(1), images)
  noisy = lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(2), leaf.shape)
  moved = Weights(jax.tree.map(noisy, weights.params), weights.model_state)
  hidden = jnp.concatenate([images, jnp.zeros_like(images[..., :1])], -1)
  assert np.abs(seeing.apply(moved, hidden)[0] - seeing.apply(moved, images)[0]).max() > 1e-4


def test_widening_keeps_the_order_of_channels():
  kernel = jnp.arange(2 * 3 * 5.0).reshape(6, 5)  # two pixels of a patch
  wide = visibility.widened(kernel, (8, 5)).reshape(2, 4, 5)
  np.testing.assert_array_equal(wide[:, :3], kernel.reshape(2, 3, 5))
  assert not wide[:, 3].any()
  with pytest.raises(ValueError, match=r"an array \(6, 5\) cannot be widened to \(9, 5\)"):
    visibility.widened(kernel, (9, 5))


def test_hidden_patches_are_zero_after_normalisation():
  images, hidden = images_of(), jnp.zeros((2, 2, 2), bool).at[0, 0, 1].set(True)
  found = visibility.hide(images, hidden, 16, "imagenet")
  whole = normalize(found, "imagenet")
  assert np.abs(whole[0, :16, 16:, :3]).max() < 1e-6 and not found[0, :16, 16:, 3].any()
  np.testing.assert_array_equal(found[0, :, :16, :3], images[0, :, :16])
  np.testing.assert_array_equal(found[1], jnp.concatenate([images[1], jnp.ones((SIDE, SIDE, 1))], -1))
  np.testing.assert_array_equal(whole[..., 3], found[..., 3])  # the visibility is not normalised


def test_the_same_number_of_patches_is_hidden_everywhere():
  hidden = visibility.sample_hidden(jax.random.key(0), 5, (40, 33), patch=8, mask_ratio=0.6)
  assert hidden.shape == (5, 5, 5) and (hidden.sum((1, 2)) == 15).all()
  assert (hidden[0] != hidden[1]).any()
