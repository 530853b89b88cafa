import numpy as np
from PIL import Image

from ssl_jax.view.segmentation import WRONG, make_palette, overlay, plot_segmentation


def test_colours_are_distinct_and_void_is_black():
  palette = make_palette(40)
  assert palette.shape == (256, 3) and palette.dtype == np.uint8
  assert len(np.unique(palette[:40], axis=0)) == 40
  assert (palette[40:] == 0).all()
  apart = np.abs(palette[1:40].astype(int) - palette[:39]).sum(1)
  assert apart.min() > 60  # neighbours are easy to tell apart


def test_an_overlay_mixes_colours_where_there_is_a_class():
  image, mask = np.full((2, 2, 3), 100, np.uint8), np.array([[0, 1], [255, 0]], np.uint8)
  drawn = overlay(image, mask)
  np.testing.assert_array_equal(drawn[1, 0], [100, 100, 100])
  for place in ((0, 0), (0, 1)):
    np.testing.assert_array_equal(drawn[place], (100 + make_palette(255)[mask[place]].astype(int)) // 2)


def found(truth, predicted):
  sizes = np.array([[20, 30], [30, 20]], np.int32)
  return {
    "shown_image": np.full((2, 30, 30, 3), 128, np.uint8),
    "shown_image_size": sizes,
    "shown_mask_size": sizes,
    "shown_truth": np.full((2, 30, 30), truth, np.uint8),
    "shown_predicted": np.full((2, 30, 30), predicted, np.uint8),
    "confusion": np.array([[5, 0], [1, 0]]),
  }


def test_errors_are_red_and_pixels_without_a_class_black(tmp_path):
  """Counts the pixels of the colours in the picture; the legend has one small patch of each."""
  pixels = {}
  for name, (truth, predicted) in {"right": (0, 0), "wrong": (0, 1), "void": (255, 1)}.items():
    path = tmp_path / f"{name}.png"
    plot_segmentation(path, found(truth, predicted), ("a", "b"), iou={"a": 0.5, "b": None}, title="$x")
    with Image.open(path) as picture:
      image = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    pixels[name] = {
      kind: int((image == colour).all(1).sum()) for kind, colour in (("red", WRONG), ("black", [0, 0, 0]))
    }
  assert pixels["wrong"]["red"] > 10_000 > 1000 > pixels["right"]["red"] == pixels["void"]["red"]
  assert pixels["void"]["black"] > 30_000 > pixels["right"]["black"]


def test_a_result_without_images_has_a_legend(tmp_path):
  only = {"confusion": np.array([[5, 0], [1, 0]])}
  plot_segmentation(tmp_path / "legend.png", only, ("a", "b"), iou={"a": 0.5, "b": None})
  with Image.open(tmp_path / "legend.png") as picture:
    assert picture.width > 300
