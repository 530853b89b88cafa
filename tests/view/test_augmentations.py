"""The ten tiles of augmentations, and the picture of them."""

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from ssl_jax.augment import crops
from ssl_jax.view import augmentations


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
  """uint8[40, 60, 3]: a landscape with many colours."""
  return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((60, 40)))


@pytest.fixture(scope="module")
def tiles(photo):
  return augmentations.make_tiles(photo, jax.random.key(0), 32)


def test_ten_labelled_tiles(photo, tiles):
  labels = [label for label, _ in tiles]
  assert [label[:3] for label in labels] == [f"({letter})" for letter in "abcdefghij"]
  assert labels[5] in ("(f) rotate 90°", "(f) rotate 180°", "(f) rotate 270°")
  images = dict(zip("abcdefghij", (tile for _, tile in tiles)))
  assert all(tile.shape == (32, 32, 3) and tile.dtype == np.uint8 for tile in images.values())
  whole = np.asarray(crops.evaluation_view(photo, size=32, crop_ratio=1.0)) * 255
  assert np.abs(images["a"] - whole).max() <= 0.51
  np.testing.assert_array_equal(images["c"], images["b"][:, ::-1])
  np.testing.assert_array_equal(images["f"], np.rot90(images["a"], int(labels[5][11:-1]) // 90))
  assert (images["d"][..., 0] == images["d"][..., 1]).all()
  assert len({tile.tobytes() for tile in images.values()}) == 10


def test_draw_writes_a_png_whatever_the_tiles(tiles, tmp_path):
  augmentations.plot_gallery(
    [*tiles, ("a small view", np.zeros((8, 8, 3), np.uint8))], tmp_path / "x.png", title="Eleven"
  )
  with Image.open(tmp_path / "x.png") as picture:
    width, height = picture.size
  assert width > 1000 and height > 700  # five columns, three rows
  with pytest.raises(ValueError, match="no tiles to draw; give at least one"):
    augmentations.plot_gallery([], tmp_path / "y.png")
