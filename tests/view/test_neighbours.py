"""The picture of nearest neighbours."""

import numpy as np
from PIL import Image

from ssl_jax.view.neighbours import plot_neighbours


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
