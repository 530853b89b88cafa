"""The picture of a confusion matrix."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax.metrics import confusion_matrix
from ssl_jax.view.class_names import name_classes
from ssl_jax.view.confusion import plot_confusion


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


def test_names_that_look_like_mathematics_or_are_not_utf8_are_drawn(tmp_path):
  names = ["$1_$5", b"caf\xe9".decode("utf-8", "surrogateescape"), "<b>", "a" * 300]
  plot_confusion(tmp_path / "a.png", np.eye(4, dtype=np.int64), class_names=names)
  assert name_classes(names, 5) == ["$1_$5", "caf�", "<b>", "a" * 300, "4"]
