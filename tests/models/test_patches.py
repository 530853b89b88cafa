"""Patches, position embeddings and masks, compared with the values of the specification."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models import patches


@pytest.mark.parametrize("height, width, patch", [(8, 8, 4), (12, 8, 4), (6, 9, 3), (4, 4, 4)])
def test_unpatchify_is_the_exact_inverse(height, width, patch):
  images = jax.random.uniform(jax.random.key(0), (2, height, width, 3))
  rows = patches.patchify(images, patch)
  assert rows.shape == (2, height * width // patch**2, patch * patch * 3)
  np.testing.assert_array_equal(patches.unpatchify(rows, patch, (height // patch, width // patch)), images)


def test_pixels_lie_by_row_column_channel_and_patches_row_by_row():
  images = np.arange(4 * 6 * 3, dtype=np.float32).reshape(1, 4, 6, 3)
  rows = patches.patchify(jnp.asarray(images), 2)
  for row, column in np.ndindex(2, 3):
    np.testing.assert_array_equal(
      rows[0, row * 3 + column], images[0, row * 2 : row * 2 + 2, column * 2 : column * 2 + 2].ravel()
    )


def test_sides_that_the_patch_does_not_divide_are_refused():
  with pytest.raises(
    ValueError,
    match="images of 30 x 30 do not divide into patches of config.encoder.patch 16; use "
    "config.augment.size 32",
  ):
    patches.patchify(jnp.zeros((1, 30, 30, 3)), 16)


def test_position_table_of_vit_base():
  table = patches.sincos_positions((14, 14), 768)
  zero, one = np.zeros(192), np.ones(192)
  np.testing.assert_array_equal(table[0], np.concatenate([zero, one, zero, one]))
  found = [table[1, 0], table[1, 192], table[1, 1], table[14, 384], table[14, 0]]
  np.testing.assert_allclose(found, [0.841471, 0.540302, 0.815251, 0.841471, 0], atol=1e-6)
  np.testing.assert_allclose(np.square(table).sum(1), 384, rtol=1e-5)
  assert table.astype(np.float64).sum() == pytest.approx(69594.4939, abs=0.01)


def test_positions_need_a_width_of_quarters():
  with pytest.raises(ValueError, match="a multiple of 4, not 30; use 32"):
    patches.sincos_positions((2, 2), 30)


@pytest.mark.parametrize(
  "count, ratio, visible",
  [
    (196, 0.75, 49),
    (196, 0.8, 39),
    (196, 0.85, 29),
    (196, 0.95, 9),
    (196, 0.5, 98),
    (196, 0.9, 19),
    (256, 0.75, 64),
  ],
)
def test_visible_patches_are_the_released_codes(count, ratio, visible):
  assert patches.visible_count(count, ratio) == visible


@pytest.mark.parametrize(
  "ratio, message",
  [
    (0.0, r"mask_ratio is 0.0; use a fraction in \(0, 1\)"),
    (1.0, r"mask_ratio is 1.0; use a fraction in \(0, 1\)"),
    (-0.5, "mask_ratio is -0.5"),
    (0.95, "mask_ratio 0.95 leaves 0 of 16 patches visible; use a ratio from 0.0625 to 0.938"),
  ],
)
def test_ratios_that_leave_nothing_are_refused(ratio, message):
  with pytest.raises(ValueError, match=message):
    patches.visible_count(16, ratio)


@pytest.mark.parametrize(
  "masking, grid", [("random", (14, 14)), ("block", (14, 14)), ("grid", (14, 14)), ("block", (4, 4))]
)
def test_every_order_is_a_permutation_of_its_own(masking, grid):
  order = np.asarray(patches.random_order(jax.random.key(0), 64, grid, 0.75, masking))
  count = grid[0] * grid[1]
  np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(count), (64, 1)))
  masks = np.ones((64, count), bool)
  np.put_along_axis(masks, order[:, : patches.visible_count(count, 0.75)], False, axis=1)
  assert (masks.sum(1) == count - count // 4).all()  # 147 of 196
  assert len(np.unique(masks, axis=0)) > 3


def test_random_masks_remove_each_patch_equally_often():
  draw = jax.jit(lambda key: patches.random_order(key, 10_000, (14, 14), 0.75))
  visible = np.asarray(draw(jax.random.key(1)))[:, :49]
  removed = 1 - np.bincount(visible.ravel(), minlength=196) / 10_000
  assert abs(removed - 0.75).max() < 4.5 * np.sqrt(0.75 * 0.25 / 10_000)


def test_an_images_mask_does_not_depend_on_the_batch():
  few, many = (patches.random_order(jax.random.key(2), count, (4, 4), 0.5) for count in (3, 8))
  np.testing.assert_array_equal(few, many[:3])


def test_blocks_leave_fewer_borders_than_single_patches():
  def borders(masking):
    order = np.asarray(patches.random_order(jax.random.key(3), 200, (14, 14), 0.75, masking))
    mask = np.ones((200, 196), bool)
    np.put_along_axis(mask, order[:, :49], False, axis=1)
    mask = mask.reshape(200, 14, 14)
    return (mask[:, 1:] != mask[:, :-1]).mean() + (mask[:, :, 1:] != mask[:, :, :-1]).mean()

  assert borders("block") < 0.5 * borders("random")


def test_grid_sees_one_of_each_cell():
  order = np.asarray(patches.random_order(jax.random.key(4), 50, (6, 4), 0.75, "grid"))[:, :6]
  row, column = order // 4, order % 4
  assert (row % 2 == row[:, :1] % 2).all() and (column % 2 == column[:, :1] % 2).all()
  assert len({(r % 2, c % 2) for r, c in zip(row[:, 0], column[:, 0])}) == 4  # each is seen by some image


@pytest.mark.parametrize("grid, ratio", [((14, 14), 0.7), ((7, 7), 0.75)])
def test_grid_that_does_not_work_out_is_refused(grid, ratio):
  with pytest.raises(ValueError, match=r"'grid' keeps one patch of every s x s visible.*use 0.75 \(s = 2\)"):
    patches.random_order(jax.random.key(0), 2, grid, ratio, "grid")


def test_unknown_masking_is_refused():
  with pytest.raises(ValueError, match="masking is 'blocks'; known: random, block, grid"):
    patches.random_order(jax.random.key(0), 2, (4, 4), 0.5, "blocks")


def test_positions_are_interpolated_as_by_pytorch():
  resize = functools.partial(patches.resize_positions, antialias=False)
  found = resize(jnp.arange(8.0).reshape(2, 4).T, (2, 2), (4, 4))  # the values of PyTorch's own test
  first = [
    [-0.31641, 0.01562, 0.56250, 0.89453],
    [0.34766, 0.67969, 1.22656, 1.55859],
    [1.44141, 1.77344, 2.32031, 2.65234],
    [2.10547, 2.43750, 2.98438, 3.31641],
  ]
  expected = np.stack([first, np.add(first, 4)], -1).reshape(16, 2)
  np.testing.assert_allclose(found, expected, atol=6e-6)
  # Shrunk to the half, each position is the same four taps, (-3, 19, 19, -3) / 32, with the border repeated.
  np.testing.assert_allclose(
    resize(jnp.eye(4), (1, 4), (1, 2)), np.array([[16, 19, -3, 0], [0, -3, 19, 16]]) / 32, atol=1e-6
  )
  table = jnp.asarray(patches.sincos_positions((3, 5), 8))
  np.testing.assert_allclose(resize(table, (3, 5), (3, 5)), table, atol=1e-6)


def test_positions_are_antialiased_on_request():
  found = patches.resize_positions(jnp.eye(4), (1, 4), (1, 2), antialias=True)
  np.testing.assert_allclose(found, jax.image.resize(jnp.eye(4), (2, 4), "cubic"), atol=1e-6)
  assert found[0, 2] > 0 > patches.resize_positions(jnp.eye(4), (1, 4), (1, 2), antialias=False)[0, 2]
