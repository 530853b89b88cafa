"""Host transforms equal plain Pillow, and the crop sampler has torchvision's statistics."""

import io
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment import crops
from ssl_jax.data import decode, transforms
from ssl_jax.data.crop_boxes import SAMPLERS
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.fit import Fit
from ssl_jax.data.sharp_resize import resize_sharply

from .conftest import encoded, smooth

PHOTO = smooth(90, 130)
JPEG = encoded(PHOTO, "JPEG", quality=95)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size, resize", [(32, 36), (32, 32), (64, 90), (100, 110)])
def test_resize_center_crop_equals_pillow(size, resize, interpolation):
  """The result of torchvision's Resize and CenterCrop, for a wide and a tall image."""
  for data in (JPEG, encoded(PHOTO.swapaxes(0, 1).copy())):
    image = Image.open(io.BytesIO(data))
    w, h = image.size
    image = image.resize(
      (resize, int(resize * h / w)) if w < h else (int(resize * w / h), resize),
      getattr(Image.Resampling, interpolation.upper()),
    )
    left, top = int(round((image.width - size) / 2)), int(round((image.height - size) / 2))
    transform = transforms.resize_center_crop(size, resize, interpolation=interpolation)
    found = transform(None, data)
    np.testing.assert_array_equal(found, np.asarray(image.crop((left, top, left + size, top + size))))
    assert found.shape == transform.shape


def test_images_of_the_right_size_are_untouched():
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
  transform = transforms.resize_center_crop(32)
  np.testing.assert_array_equal(transform(None, pixels), pixels)
  np.testing.assert_array_equal(transform(None, encoded(pixels)), pixels)
  wide = np.pad(pixels, [(0, 0), (3, 5), (0, 0)])
  np.testing.assert_array_equal(transform(None, wide), wide[:, 4:36])


def test_large_jpegs_are_decoded_smaller_and_look_the_same():
  noise = np.random.default_rng(0).normal(0, 10, (800, 1000, 3))
  data = encoded(np.clip(smooth(800, 1000) + noise, 0, 255).astype(np.uint8), "JPEG", quality=90)
  transform = transforms.resize_center_crop(112)
  whole = transform(None, decode.decode(data))
  assert np.abs(transform(None, data).astype(int) - whole).mean() < 1.5
  assert not np.array_equal(transform(None, data), whole)  # so the reduced decoding was used

  def crops(size, scale):
    return [
      transforms.random_resized_crop(size, scale=scale, reduce=reduce)(np.random.default_rng(1), data)
      for reduce in (True, False)
    ]

  reduced, exact = crops(64, (0.5, 1))
  assert 0 < np.abs(reduced.astype(int) - exact).mean() < 4
  np.testing.assert_array_equal(*crops(300, (0.1, 0.2)))  # too small for a reduced decoding


def test_random_resized_crop_equals_pillow():
  transform = transforms.random_resized_crop(48, scale=(0.2, 1.0), views=3)
  found = transform(np.random.default_rng(5), JPEG)
  assert found.shape == (3, 48, 48, 3) == transform.shape
  rng, image = np.random.default_rng(5), Image.open(io.BytesIO(JPEG))
  for view in found:
    box = transforms.random_box(rng, *image.size, scale=(0.2, 1.0))
    expected = image.crop(box).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(view, np.asarray(expected))
  np.testing.assert_array_equal(transform(np.random.default_rng(5), JPEG), found)
  assert not np.array_equal(transform(np.random.default_rng(6), JPEG), found)
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(transform))(np.random.default_rng(5), JPEG), found)


@pytest.mark.parametrize(
  "width, height, scale, mean, small",
  [
    (256, 256, (0.08, 1.0), 0.479, 0.025),
    (500, 375, (0.08, 1.0), 0.432, None),
    (256, 256, (0.2, 1.0), 0.541, 0.0),
    (500, 375, (0.2, 1.0), 0.496, 0.0),
  ],
)
def test_area_of_crops(width, height, scale, mean, small):
  """The expected statistics were computed from 1e5 draws of torchvision's sampler."""
  rng = np.random.default_rng(0)
  boxes = np.array([transforms.random_box(rng, width, height, scale=scale) for _ in range(40_000)])
  sides = boxes[:, 2:] - boxes[:, :2]
  share = sides.prod(1) / (width * height)
  assert abs(share.mean() - mean) < 0.005
  if small is not None:
    assert abs(np.mean(share < 0.1) - small) < 0.005
  assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
  inside = boxes[(sides < (width, height)).all(1)]
  assert inside[:, 0].min() == inside[:, 1].min() == 0  # both ends occur
  assert inside[:, 2].max() == width and inside[:, 3].max() == height
  proportion = sides[:, 0] / sides[:, 1]
  assert 0.7 < proportion.min() < 0.8 and 1.28 < proportion.max() < 1.38


@pytest.mark.parametrize(
  "sampler, width, height, mean, median, least",
  [
    ("tf", 256, 256, 0.423, 0.390, 0.1),
    ("tf", 500, 375, 0.387, None, 0.1),
    ("pt", 256, 256, 0.479, 0.477, 0.08),
    ("byol", 256, 256, None, None, 0.05),
  ],
)
def test_area_of_the_crops_of_each_sampler(sampler, width, height, mean, median, least):
  """The means are TensorFlow's and torchvision's; the device draws from the same distributions."""
  rng = np.random.default_rng(0)
  boxes = np.array([SAMPLERS[sampler](rng, width, height) for _ in range(40_000)])
  drawn = jax.vmap(lambda key: crops.SAMPLERS[sampler](key, height, width))(
    jax.random.split(jax.random.key(0), 40_000)
  )
  on_device = np.stack([drawn.left, drawn.top, drawn.left + drawn.width, drawn.top + drawn.height], 1)
  share, other = ((b[:, 2:] - b[:, :2]).prod(1) / (width * height) for b in (boxes, on_device))
  assert mean is None or abs(share.mean() - mean) < 0.005
  assert median is None or abs(np.median(share) - median) < 0.01
  assert share.min() >= least - 1e-3 and (boxes[:, :2] >= 0).all()
  assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
  for q in (0.1, 0.5, 0.9):
    assert abs(np.quantile(share, q) - np.quantile(other, q)) < 0.015
  np.testing.assert_allclose(boxes.mean(0), on_device.mean(0), atol=1.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width, size", [(90, 130, 32), (20, 9, 48), (1, 300, 8), (33, 33, 33)])
def test_resize_without_antialiasing_is_that_of_the_device(height, width, size, interpolation):
  pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
  whole = crops.Box(*(jax.numpy.int32(v) for v in (0, 0, height, width)))
  expected = 255 * np.asarray(
    crops.crop_resize(jax.numpy.asarray(pixels), whole, size, method=interpolation, antialias=False)
  )
  found = resize_sharply(pixels, size, interpolation)
  assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 0.51


def test_crops_without_antialiasing_are_cut_from_the_full_image():
  data = encoded(smooth(400, 500), "JPEG", quality=95)
  transform = transforms.random_resized_crop(
    32, scale=(0.5, 1.0), views=3, interpolation="bicubic", sampler="tf", antialias=False
  )
  rng, pixels = np.random.default_rng(7), decode.decode(data)
  for view in transform(np.random.default_rng(7), data):
    left, top, right, bottom = SAMPLERS["tf"](rng, 500, 400, scale=(0.5, 1.0))
    np.testing.assert_array_equal(view, resize_sharply(pixels[top:bottom, left:right], 32, "bicubic"))


@pytest.mark.parametrize("width, height, box", [(10, 400, (0, 193, 10, 206)), (400, 12, (192, 0, 208, 12))])
def test_a_picture_too_long_for_any_crop_gives_its_centre(width, height, box):
  assert transforms.random_box(np.random.default_rng(0), width, height, scale=(0.9, 1.0)) == box


def test_exif_rotated_pictures_are_cropped_upright():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encoded(PHOTO, "JPEG", quality=95, exif=exif)
  crop = transforms.random_resized_crop(32, views=2)
  upright = crop(np.random.default_rng(0), decode.decode(data))
  np.testing.assert_array_equal(crop(np.random.default_rng(0), data), upright)


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: transforms.resize_center_crop(32, 30), "resize=30 is smaller than the centre crop of size=32"),
    (lambda: transforms.resize_center_crop(0), "size=0"),
    (lambda: transforms.resize_center_crop(8, interpolation="cubic"), "'cubic'; did you mean 'bicubic'"),
    (lambda: transforms.random_resized_crop(8, scale=(0.0, 1.0)), r"scale=\(0.0, 1.0\)"),
    (lambda: transforms.random_resized_crop(8, ratio=(2.0, 1.0)), r"ratio=\(2.0, 1.0\)"),
    (lambda: transforms.random_resized_crop(8, views=0), "views=0"),
    (lambda: transforms.random_resized_crop(8, sampler="tg"), "unknown sampler 'tg'; did you mean 'tf'"),
    (
      lambda: transforms.random_resized_crop(8, interpolation="lanczos", antialias=False),
      "interpolation='lanczos' is always antialiased; use 'bilinear' or 'bicubic'",
    ),
  ],
)
def test_errors(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_damaged_file():
  for transform in (transforms.resize_center_crop(32), transforms.random_resized_crop(32)):
    with pytest.raises(DecodeError):
      transform(np.random.default_rng(0), JPEG[: len(JPEG) // 2])


MEMORY = """
import io, resource
import numpy as np
from PIL import Image
from ssl_jax.data import host, transforms
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for mode, width, height in (
  ("RGB", 1, 20_000), ("RGB", 20_000, 3), ("RGB", 1, 3_000_000), ("RGB", 3_000_000, 1),
  ("RGBA", 4000, 4000), ("I;16", 5000, 3000)
):
  file = io.BytesIO()
  Image.new(mode, (width, height)).save(file, "PNG", compress_level=1)
  frame = host.Frame(224)
  mask = np.zeros((height, width), np.uint8)
  for transform in (
    host.image(frame), host.image(frame._replace(views=2)),
    host.image(frame._replace(views=1, interpolation="bicubic", sampler="tf", antialias=False)),
    host.image_mask(frame), host.image_mask(frame, fit="crop"),
  ):
    before = peak()
    transform(np.random.default_rng(0), {"image": file.getvalue(), "mask": mask, "label": 0})
    grown = (peak() - before) / 1024
    assert grown < 100 + 9 * width * height / 2**20, (transform, mode, width, height, grown)
"""


def test_memory_is_bounded_by_the_size_of_the_image():
  subprocess.run([sys.executable, "-c", MEMORY], check=True)


@pytest.mark.parametrize("interpolation", sorted(transforms.INTERPOLATIONS))
@pytest.mark.parametrize("width, height, side", [(7, 300, 20), (300, 7, 20), (40, 900, 16), (1, 50, 8)])
def test_long_and_thin_images_are_resized_where_they_are_kept(
  width, height, side, interpolation, monkeypatch
):
  pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
  transform = transforms.resize_center_crop(side, interpolation=interpolation)
  found = transform(None, pixels)
  monkeypatch.setattr(transforms, "LONGEST", 10_000)
  whole = transform(None, pixels)
  assert np.abs(found.astype(int) - whole).max() <= 1
  opened = decode.open_image(pixels)
  place = Fit(side, "crop", interpolation).check().place(width, height)
  np.testing.assert_array_equal(Fit(side, "crop", interpolation).image(opened, place), whole)
