import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix as oracle

from ssl_jax.view.pictures import (
  confusion_matrix,
  first_of_each_class,
  images_at,
  plot_confusion,
  plot_neighbours,
)


def test_confusion_matrix_equals_scikit_learn():
  draw = np.random.default_rng(0)
  labels, predictions = draw.integers(0, 6, 200).astype(np.int32), draw.integers(0, 6, 200).astype(np.int32)
  labels[labels == 4] = 0  # a class without images
  expected = oracle(labels, predictions, labels=range(7))
  np.testing.assert_array_equal(confusion_matrix(labels, predictions, 7), expected)


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_the_confusion_picture_is_drawn(tmp_path, classes):
  draw = np.random.default_rng(0)
  labels = draw.integers(0, classes - 1, 500)  # the last class has no images
  matrix = confusion_matrix(labels, draw.integers(0, classes, 500), classes)
  plot_confusion(
    tmp_path / "confusion.png",
    matrix,
    title="k-NN",
    class_names=["a very long name of a class, with synonyms", "b"],
  )
  pixels = np.asarray(Image.open(tmp_path / "confusion.png").convert("RGB")).astype(int)
  assert min(pixels.shape[:2]) > 300
  blue, orange = pixels[..., 2] - pixels[..., 0] > 60, pixels[..., 0] - pixels[..., 2] > 40
  assert blue.any() and orange.mean() > 0.02


def test_the_neighbours_picture_frames_right_green_and_wrong_red(tmp_path):
  images = np.full((2, 3, 8, 8, 3), 128, np.uint8)

  def drawn(labels):
    plot_neighbours(
      tmp_path / "neighbours.png",
      images[:, 0],
      np.array([0, 1]),
      images,
      np.array(labels),
      similarity=np.full((2, 3), 0.5),
      class_names=("ant", "bee"),
      title="pixels",
    )
    pixels = np.asarray(Image.open(tmp_path / "neighbours.png").convert("RGB")).astype(int)
    red, green = pixels[..., 0], pixels[..., 1]
    return (green - red > 60).sum(), (red - green > 60).sum()

  assert drawn([[0, 0, 0], [1, 1, 1]])[1] == 0
  assert drawn([[1, 1, 1], [0, 0, 0]])[0] == 0
  right, wrong = drawn([[0, 1, 0], [0, 1, 0]])
  assert right > 500 and wrong > 500


def test_first_of_each_class_goes_round():
  np.testing.assert_array_equal(first_of_each_class(np.array([2, 0, 0, 2, 1, 0]), 5), [1, 4, 0, 2, 3])
  assert len(first_of_each_class(np.array([0, 0]), 9)) == 2


def test_images_at_finds_by_place_or_by_index(blobs, batches_of):
  images, labels = blobs(100, 0)
  wanted = np.array([[99, 0], [64, 99]], np.int32)
  np.testing.assert_array_equal(images_at(batches_of(images, labels, 64), wanted), images[wanted])
  order = np.random.default_rng(0).permutation(100)

  def shuffled():
    for part in np.split(order, 4):
      yield {"image": images[part], "label": labels[part], "index": part}

  np.testing.assert_array_equal(images_at(shuffled, wanted), images[wanted])
  with pytest.raises(ValueError, match="1 of 2 image numbers are not in the split, the first is 100"):
    images_at(batches_of(images, labels, 64), np.array([3, 100]))
