"""The atlas of a k-NN search, and the choice and reading of its images."""

import numpy as np
import pytest

from ssl_jax.view import knn_atlas
from ssl_jax.view.knn_atlas import first_of_each_class, images_at
from tests.view.report.runs import make_atlas


def test_first_of_each_class_goes_round():
  np.testing.assert_array_equal(first_of_each_class(np.array([2, 0, 0, 2, 1, 0]), 5), [1, 4, 0, 2, 3])
  assert len(first_of_each_class(np.array([0, 0]), 9)) == 2


def test_images_at_finds_by_place_or_by_index():
  rng = np.random.default_rng(0)
  images, order = rng.integers(0, 256, (100, 4, 4, 3), np.uint8), rng.permutation(100)
  wanted = np.array([[99, 0], [64, 99]], np.int32)

  def padded():
    yield {"image": images[:64]}
    rows = np.arange(64, 128)
    yield {"image": images[np.where(rows < 100, rows, 0)], "valid": rows < 100}

  def shuffled():
    for part in np.split(order, 4):
      yield {"image": images[part], "index": part}

  for batches in (padded, shuffled):
    np.testing.assert_array_equal(images_at(batches, wanted), images[wanted])
  with pytest.raises(ValueError, match="1 of 2 image numbers are not in the split, the first is 100"):
    images_at(padded, np.array([3, 100]))


def test_an_atlas_is_small_balanced_and_comes_back_as_it_was(tmp_path):
  seen = make_atlas(("a", "b", "c"), count=250, side=160)
  assert seen["image"].shape == (600, 48, 48, 3) and seen["query_image"].shape == (8, 128, 128, 3)
  assert seen["neighbour_image"].shape == (8, 2, 128, 128, 3) and seen["components"].shape == (600, 3)
  assert np.bincount(seen["label"]).tolist() == [200, 200, 200]
  np.savez_compressed(tmp_path / "atlas.npz", **seen)
  back = knn_atlas.load_atlas(tmp_path / "atlas.npz")
  assert back.keys() == seen.keys() and all((back[name] == seen[name]).all() for name in seen)


def test_an_atlas_with_pickled_objects_is_not_opened(tmp_path):
  np.savez(tmp_path / "atlas.npz", image=np.array([print], dtype=object))
  with pytest.raises(ValueError, match="allow_pickle=False"):
    knn_atlas.load_atlas(tmp_path / "atlas.npz")
