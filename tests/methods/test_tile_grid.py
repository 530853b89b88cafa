"""The positions of the tiles, and the operations on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.methods.pretext import tile_grid

GRID = tile_grid.Grid(64, 21, 21)


def test_tiles_lie_within_their_cells_and_reach_both_ends():
  sample = jax.jit(lambda key: tile_grid.sample_corners(key, 12_000, GRID, 255))
  found = np.asarray(sample(jax.random.key(0)))  # 108,000 tiles
  cells = np.indices((3, 3)).reshape(2, 9).T * 85
  offset = found - cells
  assert offset.min() == 0 and offset.max() == 21
  assert len(np.unique(offset)) == 22
  assert abs(offset.mean() - 10.5) < 0.05


def test_a_grid_smaller_than_the_image_lies_anywhere_in_it():
  grid = tile_grid.Grid(4, 1, 2)  # extent 16
  found = np.asarray(tile_grid.sample_corners(jax.random.key(0), 2000, grid, 20))
  assert found.min() == 0 and (found[:, 8] + 4).max() == 20
  steps = np.diff(found.reshape(-1, 3, 3, 2)[..., 1], axis=2)
  assert steps.min() == 5 - 2 and steps.max() == 5 + 2


def test_doerschs_geometry():
  """The corners of neighbouring patches are 144 +- 14 apart, and their borders at least 34."""
  grid = tile_grid.Grid(96, 48, 14)
  assert grid.extent == 398
  found = np.asarray(tile_grid.sample_corners(jax.random.key(1), 4000, grid, 398)).reshape(-1, 3, 3, 2)
  steps = np.diff(found[..., 1], axis=2)
  assert steps.min() == 130 and steps.max() == 158 and steps.min() - 96 == 34


def test_what_is_cut_is_the_image_there():
  images = np.random.default_rng(0).random((3, 20, 20, 3), np.float32)
  corners = np.asarray(tile_grid.sample_corners(jax.random.key(0), 3, tile_grid.Grid(4, 1, 2), 20))
  found = jax.jit(tile_grid.cut_tiles, static_argnums=2)(images, corners, 4)
  for image in range(3):
    for n, (top, left) in enumerate(corners[image]):
      np.testing.assert_array_equal(found[image, n], images[image, top : top + 4, left : left + 4])


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: tile_grid.Grid(0, 1, 1).check(),
      "tile 0, gap 1 and jitter 1 do not form a grid; use a positive tile",
    ),
    (
      lambda: tile_grid.sample_corners(jax.random.key(0), 2, GRID, 224),
      "tile 64, two gaps of 21 and jitter 21 take 255 pixels; use config.augment.size 255 or more",
    ),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def patches(seed=0, shape=(2, 9, 8, 8, 3)):
  return jnp.asarray(np.random.default_rng(seed).random(shape, np.float32))


def test_standardized_tiles_have_mean_0_and_deviation_1():
  flat = patches().at[0, 0, :, :, 1].set(0.3)  # a constant channel stays constant
  z = 4 * (np.asarray(tile_grid.standardize(flat)) - 0.5)
  assert np.abs(z.mean((2, 3))).max() < 1e-5
  deviation = z.std((2, 3))
  assert deviation[0, 0, 1] < 1e-5
  np.testing.assert_allclose(np.delete(deviation.ravel(), 1), 1, atol=1e-4)


def test_equalized_tiles_have_power_1():
  z = 4 * (np.asarray(tile_grid.equalize(patches())) - 0.5)
  np.testing.assert_allclose(50 * np.sqrt((z**2).mean((2, 3, 4))), 50, atol=1e-3)
  assert np.abs(z.mean((2, 3))).max() < 1e-5


def test_colour_dropping_leaves_one_centred_channel_of_each_tile():
  x = patches(shape=(40, 9, 8, 8, 3))
  found = np.asarray(tile_grid.drop_colour(jax.random.key(0), x))
  quiet = np.abs(found).max((2, 3)) <= 0.5 / 255 + 1e-7
  assert (quiet.sum(-1) == 2).all()
  kept = (~quiet).argmax(-1)
  assert (np.bincount(kept.ravel(), minlength=3) > 80).all()
  assert any(len(set(row)) > 1 for row in kept)  # every tile draws its own channel
  for i, n in np.ndindex(5, 9):
    c = kept[i, n]
    np.testing.assert_allclose(found[i, n, ..., c], x[i, n, ..., c] - x[i, n, ..., c].mean(), atol=1e-6)


def test_projection_removes_green_against_magenta():
  b, a = tile_grid.PROJECTION, tile_grid.OPPONENT
  np.testing.assert_allclose(b @ a, 0, atol=1e-6)
  np.testing.assert_allclose(b @ b, b, atol=1e-6)
  np.testing.assert_allclose(
    b, [[5 / 6, 1 / 3, -1 / 6], [1 / 3, 1 / 3, 1 / 3], [-1 / 6, 1 / 3, 5 / 6]], atol=1e-6
  )
  assert np.trace(b) == pytest.approx(2)
  grey = jnp.full((2, 2, 3), 0.4)
  np.testing.assert_allclose(tile_grid.project(grey), grey, atol=1e-6)


def test_grey_at_the_probability_and_channels_displaced():
  images = patches(shape=(600, 6, 6, 3))
  found = np.asarray(tile_grid.random_grey(jax.random.key(0), images, 0.66))
  grey = np.ptp(found, axis=-1).max((1, 2)) < 1e-6
  assert abs(grey.mean() - 0.66) < 0.06
  np.testing.assert_array_equal(found[~grey], np.asarray(images)[~grey])
  moved = np.asarray(tile_grid.shift_channels(jax.random.key(0), images, 2))
  assert moved.shape == (600, 4, 4, 3)
  starts = [
    [
      (r, c)
      for r in range(3)
      for c in range(3)
      if np.array_equal(moved[i, ..., ch], images[i, r : r + 4, c : c + 4, ch])
    ]
    for i in range(40)
    for ch in range(3)
  ]
  assert all(len(found) == 1 for found in starts) and len({found[0] for found in starts}) == 9


def test_coarse_tiles_are_pillow_like_reductions():
  x = patches(shape=(30, 9, 12, 12, 3))
  found = np.asarray(jax.jit(tile_grid.random_coarse, static_argnums=2)(jax.random.key(0), x, 0.33))
  changed = np.abs(found - np.asarray(x)).max((2, 3, 4)) > 1e-4
  assert 0.2 < changed.mean() < 0.45
  i, n = np.argwhere(changed)[0]
  made = [
    jax.image.resize(jax.image.resize(x[i, n], (s, s, 3), "linear"), (12, 12, 3), "linear")
    for s in range(1, 12)
  ]
  assert min(np.abs(np.asarray(m) - found[i, n]).max() for m in made) < 1e-5
