"""Rectangular canvases, masks at full resolution, and the sizes that canvases must have."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import decode, host, pipeline, sources
from ssl_jax.data.fit import Fit
from ssl_jax.data.full_mask import ImageAndFullMask
from ssl_jax.data.image_sizes import image_sizes, resized
from ssl_jax.data.transforms import shorter_side_to

from .conftest import encoded, smooth


def columns(height, width):
  """An image and a mask that both encode the column of each pixel: red is 5 and the class 1 per column."""
  image = smooth(height, width)
  image[:, :, 0] = 5 * np.arange(width)[None]
  return {"image": image, "mask": np.broadcast_to(np.arange(width), (height, width)).astype(np.uint8)}


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("canvas", [(16, 40), (40, 16), (24, 24)])
@pytest.mark.parametrize("size", [(20, 50), (50, 20), (10, 12), (33, 33), (1, 50)])
def test_images_fit_any_canvas(fit, canvas, size):
  transform = host.image_mask(host.Frame(8), fit=fit, height=canvas[0], width=canvas[1])
  assert transform.elements["image"].shape == (*canvas, 3) and transform.elements["mask"].shape == canvas
  made = transform(None, columns(*size))
  assert made["image"].shape == (*canvas, 3) and made["mask"].shape == canvas
  height, width = made["image_size"]
  if fit == "crop":
    assert (height, width) == canvas
    across, down = Fit(canvas, fit).place(*size[::-1]).resized
    factor = max(canvas[0] / size[0], canvas[1] / size[1])  # the proportions are kept
    assert 0 <= factor * size[1] - across < 1 + 1e-9 and 0 <= factor * size[0] - down < 1 + 1e-9
  else:
    factor = min(1, canvas[0] / size[0], canvas[1] / size[1])
    assert abs(height - max(1, factor * size[0])) <= 0.5 and abs(width - max(1, factor * size[1])) <= 0.5
    assert (made["mask"][height:] == 255).all() and (made["mask"][:, width:] == 255).all()
  inside = made["mask"][:height, :width]
  assert (inside != 255).all()
  wide = (
    size[1] if fit == "pad" else size[1] * canvas[1] / Fit(canvas, fit).place(*size[::-1]).resized[0]
  ) / width
  assert np.abs(made["image"][:height, :width, 0] / 5 - inside).max() <= max(wide, 1)


def test_the_canvas_is_the_size_of_the_data_unless_it_is_given():
  for name in ("image_mask", "image_boxes"):
    shapes = [
      host.make(name, host.Frame(8), **options).elements["image"].shape
      for options in ({}, {"height": 6}, {"width": 20}, {"height": 6, "width": 20})
    ]
    assert shapes == [(8, 8, 3), (6, 8, 3), (8, 20, 3), (6, 20, 3)]
    with pytest.raises(
      ValueError, match="config.host.width is -1; use a number of pixels, or 0 for config.data"
    ):
      host.make(name, host.Frame(8), width=-1)


def test_boxes_on_a_rectangle():
  fit = Fit((10, 20), "pad").check()
  place = fit.place(80, 20)  # reduced to 20 x 5
  boxes, kept = fit.boxes(np.array([[0, 0, 80, 20], [8, 4, 40, 12]], np.float32), place)
  assert kept.tolist() == [0, 1] and place.filled().tolist() == [5, 20]
  np.testing.assert_allclose(boxes, [[0, 0, 20, 5], [2, 1, 10, 3]])
  place = Fit((10, 20), "crop").place(40, 40)  # 20 x 20, of which rows 5 to 15 remain
  assert place.resized == (20, 20) and place.offset == (0, 5) and place.filled().tolist() == [10, 20]


@pytest.mark.parametrize("short_side", [0, 10, 31])
def test_the_mask_keeps_its_resolution(short_side):
  transform = ImageAndFullMask(short_side, (64, 80), (50, 60)).check()
  for height, width in ((20, 30), (30, 20), (25, 25), (41, 51)):
    record = columns(height, width)
    made = transform(None, record)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in made.items()} == {
      name: (spec.shape, np.dtype(spec.dtype)) for name, spec in transform.elements.items()
    }
    assert made["mask_size"].tolist() == [height, width]
    assert (made["mask"][:height, :width] == record["mask"]).all()
    assert (made["mask"] != 255).sum() == height * width
    h, w = made["image_size"]
    assert not made["image"][h:].any() and not made["image"][:, w:].any()
    if short_side:
      assert (w, h) == shorter_side_to(short_side, width, height)
      expected = Image.fromarray(record["image"]).resize((w, h), Image.Resampling.BILINEAR)
      np.testing.assert_array_equal(made["image"][:h, :w], np.asarray(expected))
    else:
      np.testing.assert_array_equal(made["image"][:h, :w], record["image"])


def test_what_exceeds_its_canvas_is_refused():
  transform = ImageAndFullMask(0, (20, 40), (20, 30))
  for size, message in (
    ((21, 40), r"the image of 21x40 pixels \(height x width\) takes 21x40, but its canvas has 20x40; use a"),
    ((20, 31), r"the mask of 20x31 pixels \(height x width\) takes 20x31, but its canvas has 20x30"),
  ):
    with pytest.raises(ValueError, match=message) as caught:
      transform(None, columns(*size))
    assert not isinstance(caught.value, decode.DecodeError)  # not a damaged file that may be left out
  with pytest.raises(ValueError, match="the image of 10x20 pixels .* takes 30x60, but its canvas has 20x40"):
    ImageAndFullMask(30, (20, 40), (20, 30))(None, columns(10, 20))
  with pytest.raises(decode.DecodeError, match="the mask has 5x4 pixels, the image 4x4"):
    transform(None, {"image": smooth(4, 4), "mask": np.zeros((4, 5), np.uint8)})
  with pytest.raises(ValueError, match="short_side=-1; use"):
    ImageAndFullMask(-1, (20, 40), (20, 30)).check()


def rotated(pixels, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return encoded(pixels, "JPEG", exif=exif)


def test_sizes_come_from_headers_and_are_those_of_the_transform(tmp_path):
  (tmp_path / "images").mkdir()
  (tmp_path / "masks").mkdir()
  upright = [(20, 31), (31, 20), (17, 17), (40, 9), (12, 30)]
  for i, (height, width) in enumerate(upright):
    turned = i == 4
    pixels = smooth(width, height) if turned else smooth(height, width)
    data = rotated(pixels, 6) if turned else encoded(pixels, "JPEG" if i % 2 else "PNG")
    (tmp_path / "images" / f"{i}.jpg").write_bytes(data)
    (tmp_path / "masks" / f"{i}.png").write_bytes(encoded(np.zeros((height, width), np.uint8)))
  (tmp_path / "images" / "5.jpg").write_bytes(b"no image")
  (tmp_path / "masks" / "5.png").touch()
  (tmp_path / "images" / "6.jpg").write_bytes(encoded(smooth(8, 8), "JPEG"))  # has no mask
  source = sources.make("mask_folder", data_dir=str(tmp_path))
  sizes = image_sizes(source)
  assert sizes.dtype == np.int32 and sizes.tolist() == [*map(list, upright), [0, 0], [0, 0]]
  np.testing.assert_array_equal(image_sizes(source, threads=3), sizes)
  for short_side in (0, 7, 23):
    found = resized(sizes, short_side)
    assert found.dtype == np.int32 and found[5:].tolist() == [[0, 0], [0, 0]]
    transform = ImageAndFullMask(
      short_side, tuple(found.max(0).tolist()), tuple(sizes.max(0).tolist())
    ).check()
    for i in range(5):
      made = transform(None, source[i])
      assert made["image_size"].tolist() == found[i].tolist()
      assert made["mask_size"].tolist() == sizes[i].tolist()
  assert resized(np.zeros((0, 2), np.int32), 7).shape == (0, 2)


def test_real_photographs_at_the_size_of_their_masks(shared_data, tmp_path):
  for part, folder in (("images", "images"), ("semantic", "masks")):
    with zipfile.ZipFile(shared_data / f"voc2008/val_{part}.zip") as archive:
      archive.extractall(tmp_path / folder)
  source = sources.make("mask_folder", data_dir=str(tmp_path), split="train[:40]")
  sizes = image_sizes(source)
  assert (sizes.max(1) == 320).all()
  found = resized(sizes, 128)
  assert (found.min(1) == 128).all()
  transform = ImageAndFullMask(128, tuple(found.max(0).tolist()), tuple(sizes.max(0).tolist())).check()
  with pipeline.eval_batches(source, batch_size=16, transform=transform) as batches:
    rows = [{name: leaf[i] for name, leaf in batch.items()} for batch in batches for i in range(16)]
  assert not batches.bad and sum(row["valid"] for row in rows) == 40
  for i, row in enumerate(rows[:40]):
    height, width = row["mask_size"]
    assert (row["mask"][:height, :width] == decode.decode_mask(source[i]["mask"])).all()
