import io

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data.whole_image import WholeImage, canvas_of, resized_to


@pytest.mark.parametrize(
  "shorter, longest, size, expected",
  [
    (800, 1333, (500, 375), (1067, 800)),  # VOC, as detectron2 resizes it
    (800, 1333, (640, 128), (1333, 267)),
    (800, 1333, (375, 500), (800, 1067)),
    (0, 0, (500, 375), (500, 375)),
    (0, 320, (640, 480), (320, 240)),
    (224, 0, (100, 50), (448, 224)),
    (0, 1, (100, 1), (1, 1)),
  ],
)
def test_sizes(shorter, longest, size, expected):
  assert resized_to(shorter, longest, *size) == expected


def test_the_canvas_holds_portrait_and_landscape():
  sizes = np.array([[375, 500], [500, 375], [100, 400]])
  assert canvas_of(sizes, 800, 1333) == (1067, 1333)
  assert canvas_of(sizes, 0, 0) == (500, 500)


def encoded(height, width):
  ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
  out = io.BytesIO()
  Image.fromarray(ramp).save(out, "PNG")
  return {"image": out.getvalue()}, ramp


def test_the_image_lies_in_the_upper_left_and_its_sizes_are_told():
  record, ramp = encoded(20, 30)
  transform = WholeImage(0, 0, (32, 40))
  found = transform(None, record)
  assert {name: leaf.shape for name, leaf in found.items()} == {
    name: spec.shape for name, spec in transform.elements.items()
  }
  np.testing.assert_array_equal(found["image"][:20, :30], ramp)
  assert not found["image"][20:].any() and not found["image"][:, 30:].any()
  assert found["image_size"].tolist() == [20, 30] and found["full_size"].tolist() == [20, 30]
  smaller = WholeImage(10, 0, (32, 40))(None, record)
  assert smaller["image_size"].tolist() == [10, 15] and smaller["full_size"].tolist() == [20, 30]


def test_an_image_beyond_the_canvas_is_refused():
  with pytest.raises(ValueError, match="becomes 20x30 pixels .* its canvas has 16x40"):
    WholeImage(0, 0, (16, 40))(None, encoded(20, 30)[0])
