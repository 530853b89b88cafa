"""Mixup and cutmix: the returned fraction equals the fraction of the pixels that an image keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import mix

ONES = jnp.tile(jnp.array([1.0, 0.0]).reshape(2, 1, 1, 1), (2, 16, 12, 3))  # partners are 1 and 0 everywhere


def draw(count: int, **options):
  keys = jax.random.split(jax.random.key(0), count)
  images, fraction = jax.jit(jax.vmap(lambda key: mix.random_mix(key, ONES, **options)))(keys)
  return np.asarray(images), np.asarray(fraction)


def test_partners_are_neighbours():
  np.testing.assert_array_equal(mix.partner(jnp.arange(6)), [1, 0, 3, 2, 5, 4])
  with pytest.raises(ValueError, match="but 5 is an odd number of images; use an even config.batch_size"):
    mix.partner(jnp.arange(5))


def test_mixup_blends_evenly_over_the_image():
  images, fraction = draw(500, mixup=0.8, cutmix=0.0)
  np.testing.assert_allclose(
    images[:, 0], np.broadcast_to(fraction[:, None, None, None], images[:, 0].shape), atol=1e-6
  )
  np.testing.assert_allclose(images[:, 1], 1 - images[:, 0], atol=1e-6)
  assert fraction.mean() == pytest.approx(0.5, abs=0.05)
  assert fraction.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.15)  # of Beta(0.8, 0.8)


def test_cutmix_pastes_a_rectangle_of_the_returned_area():
  images, fraction = draw(500, mixup=0.0, cutmix=1.0)
  own = images[:, 0, :, :, 0]
  assert set(np.unique(own)) <= {0.0, 1.0}
  np.testing.assert_allclose(own.mean((1, 2)), fraction, atol=1e-6)
  np.testing.assert_array_equal(images[:, 1, :, :, 0], 1 - own)
  for one in own[:50] == 0:
    rows, columns = one.any(1).sum(), one.any(0).sum()
    assert one.sum() == rows * columns
  assert fraction.mean() > 0.5  # the part of the rectangle outside the image is not pasted


def test_both_are_drawn_half_the_time():
  images, _ = draw(500, mixup=0.8, cutmix=1.0)
  blended = ((images[:, 0] > 0) & (images[:, 0] < 1)).any((1, 2, 3))
  assert 0.42 < blended.mean() < 0.58


def test_no_mixing_leaves_the_images():
  images, fraction = draw(3, mixup=0.0, cutmix=0.0)
  np.testing.assert_array_equal(images[0], ONES)
  np.testing.assert_array_equal(fraction, np.ones(3))
