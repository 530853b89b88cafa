"""Mixup and cutmix: the share that is returned is the share that is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import mix

ONES = jnp.tile(jnp.array([1.0, 0.0]).reshape(2, 1, 1, 1), (2, 16, 12, 3))  # partners are 1 and 0 everywhere


def draw(count: int, **options):
  keys = jax.random.split(jax.random.key(0), count)
  images, share = jax.jit(jax.vmap(lambda key: mix.random_mix(key, ONES, **options)))(keys)
  return np.asarray(images), np.asarray(share)


def test_partners_are_neighbours():
  np.testing.assert_array_equal(mix.partner(jnp.arange(6)), [1, 0, 3, 2, 5, 4])
  with pytest.raises(ValueError, match="which 5 do not allow; use an even config.batch_size"):
    mix.partner(jnp.arange(5))


def test_mixup_blends_evenly_over_the_image():
  images, share = draw(500, mixup=0.8, cutmix=0.0)
  np.testing.assert_allclose(
    images[:, 0], np.broadcast_to(share[:, None, None, None], images[:, 0].shape), atol=1e-6
  )
  np.testing.assert_allclose(images[:, 1], 1 - images[:, 0], atol=1e-6)
  assert share.mean() == pytest.approx(0.5, abs=0.05)
  assert share.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.15)  # of Beta(0.8, 0.8)


def test_cutmix_pastes_a_rectangle_of_the_share():
  images, share = draw(500, mixup=0.0, cutmix=1.0)
  own = images[:, 0, :, :, 0]
  assert set(np.unique(own)) <= {0.0, 1.0}
  np.testing.assert_allclose(own.mean((1, 2)), share, atol=1e-6)
  np.testing.assert_array_equal(images[:, 1, :, :, 0], 1 - own)
  for one in own[:50] == 0:
    rows, columns = one.any(1).sum(), one.any(0).sum()
    assert one.sum() == rows * columns
  assert share.mean() > 0.5  # what lies outside the image is given back


def test_both_are_drawn_half_the_time():
  images, _ = draw(500, mixup=0.8, cutmix=1.0)
  blended = ((images[:, 0] > 0) & (images[:, 0] < 1)).any((1, 2, 3))
  assert 0.42 < blended.mean() < 0.58


def test_no_mixing_leaves_the_images():
  images, share = draw(3, mixup=0.0, cutmix=0.0)
  np.testing.assert_array_equal(images[0], ONES)
  np.testing.assert_array_equal(share, np.ones(3))
