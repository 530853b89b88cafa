"""The codec of instance masks equals pycocotools in every pixel and every byte."""

import numpy as np
import pytest

from ssl_jax.data import instance_masks
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.instance_masks import EncodedMask


def blobs(count, seed=0):
  draw = np.random.default_rng(seed)
  for i in range(count):
    height, width = draw.integers(1, 60, 2)
    yield draw.random((height, width)) < (0.02, 0.5, 0.98, 0.0, 1.0)[i % 5]


def test_run_lengths_round_trip_and_equal_the_reference():
  reference = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
  for mask in blobs(60):
    encoded = instance_masks.from_pixels(mask)
    assert encoded.counts == reference.encode(np.asfortranarray(mask, np.uint8))["counts"]
    np.testing.assert_array_equal(instance_masks.pixels(encoded), mask)
    runs = instance_masks.decompress(encoded.counts)
    plain = instance_masks.from_coco({"size": list(mask.shape), "counts": runs.tolist()}, 0, 0)
    assert plain == encoded
    text = instance_masks.from_coco(instance_masks.to_coco(encoded), 0, 0)
    assert text == encoded


def test_a_mask_by_hand():
  mask = np.zeros((3, 4), bool)
  mask[1:, 2] = True
  encoded = instance_masks.from_pixels(mask)
  assert instance_masks.decompress(encoded.counts).tolist() == [7, 2, 3]
  square = instance_masks.from_coco([[1, 1, 3, 1, 3, 3, 1, 3]], 4, 5)
  expected = np.zeros((4, 5), bool)
  expected[1:3, 1:3] = True
  np.testing.assert_array_equal(instance_masks.pixels(square), expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("places", [1.0, 0.1, 0.01])
def test_polygons_equal_the_reference(places):
  """Random polygons, which cross themselves, leave the image and repeat points, rounded as COCO's are."""
  reference = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
  draw = np.random.default_rng(1)
  for i in range(150):
    height, width = draw.integers(5, 80, 2)
    polygons = []
    for _ in range(draw.integers(1, 4)):
      points = draw.uniform(-10, 90, (draw.integers(3, 12), 2))
      points = np.round(points / places) * places
      if i % 3 == 0:
        points = np.repeat(points, 2, axis=0)
      if i % 3 == 1:
        points[1, 0] = points[0, 0]
        points[2, 1] = points[1, 1]
      polygons.append(points.ravel().tolist())
    encoded = instance_masks.from_coco(polygons, int(height), int(width))
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, int(height), int(width))))
    np.testing.assert_array_equal(instance_masks.pixels(encoded), expected.astype(bool))
    runs = instance_masks.from_pixels(instance_masks.pixels(encoded))
    np.testing.assert_array_equal(reference.decode(instance_masks.to_coco(runs)), expected)
    assert instance_masks.to_coco(encoded) == polygons


def test_what_is_not_a_mask_is_refused():
  with pytest.raises(DecodeError, match="add up to 11 pixels, .* its size is 3x4 .* is 12 pixels"):
    instance_masks.pixels(instance_masks.from_coco({"size": [3, 4], "counts": [5, 6]}, 0, 0))
  with pytest.raises(DecodeError, match="or one is negative"):
    instance_masks.pixels(instance_masks.from_coco({"size": [3, 4], "counts": [5, -1, 8]}, 0, 0))
  with pytest.raises(DecodeError, match="end in the middle of a number"):
    instance_masks.pixels(EncodedMask(3, 4, b"P"))
  for wrong in ("abc", 3, {"counts": [1]}):
    with pytest.raises(ValueError, match="a segmentation must be polygons or run lengths, not"):
      instance_masks.from_coco(wrong, 3, 4)
  short = instance_masks.from_coco([[1, 1, 3, 3]], 4, 5)
  assert short.polygons == () and not instance_masks.pixels(short).any()
  assert instance_masks.to_coco(short) == {"size": [4, 5], "counts": "d0"}


def test_a_crop_to_a_box_covers_its_cells():
  mask = np.zeros((20, 30), bool)
  mask[5:15, 10:20] = True
  whole = instance_masks.crop(mask, np.array([0, 0, 30, 20], np.float32), 10)
  expected = mask.reshape(10, 2, 10, 3).mean((1, 3)) >= 0.5
  np.testing.assert_array_equal(whole, expected)
  inner = instance_masks.crop(mask, np.array([10, 5, 20, 15], np.float32), 7)
  assert inner.all()
  half = instance_masks.crop(mask, np.array([5, 5, 15, 15], np.float32), 8)
  np.testing.assert_array_equal(half, np.repeat([[0] * 4 + [1] * 4], 8, 0))
  up = instance_masks.crop(mask, np.array([9, 4, 11, 6], np.float32), 8)
  np.testing.assert_array_equal(up, np.pad(np.ones((4, 4), np.uint8), ((4, 0), (4, 0))))


def test_several_masks_are_encoded_in_one_pass():
  numbers = np.random.default_rng(0).integers(0, 4, (7, 5))
  numbers[-1, -1] = 2  # the last run is inside
  found = instance_masks.from_numbers(numbers, [2, 0, 3, 9])
  assert found == [instance_masks.from_pixels(numbers == k) for k in (2, 0, 3, 9)]
  assert instance_masks.from_numbers(np.ones((2, 3), int), [1]) == [
    instance_masks.from_pixels(np.ones((2, 3), bool))
  ]
