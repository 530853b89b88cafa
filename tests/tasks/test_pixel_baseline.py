import jax
import numpy as np
import pytest

from ssl_jax.data import sources
from ssl_jax.tasks.pixel_baseline import MEAN, TWICE, mean_image, pixels, strongest_pixels, thinned


def test_pixels_are_centred_once_or_twice(blobs):
  images = blobs(20, 0)[0].astype(np.float32) / 255
  mean = images.mean(0)
  once = (images - mean).reshape(20, -1) / np.sqrt(48)
  twice = once - once.mean(1, keepdims=True)
  for backbone, expected in ((pixels(mean, own_mean=False), once), (pixels(mean), twice)):
    found = jax.jit(backbone.method.encode)(*backbone.weights, images)
    np.testing.assert_allclose(found, expected, atol=1e-6)
  assert (
    pixels(mean, own_mean=False).protocol["centred"] == MEAN and pixels(mean).protocol["centred"] == TWICE
  )
  plain = pixels()
  flat = images.reshape(20, -1) / np.sqrt(48)
  found = plain.method.encode(*plain.weights, images)
  np.testing.assert_allclose(found, flat - flat.mean(1, keepdims=True), atol=1e-6)
  assert plain.method.encode is pixels(mean).method.encode


def test_mean_image_leaves_out_masked_rows(blobs, batches_of):
  images, labels = blobs(70, 0)
  np.testing.assert_allclose(mean_image(batches_of(images, labels, 64)), images.mean(0) / 255, atol=1e-6)
  with pytest.raises(ValueError, match="no images to compute a mean image from"):
    mean_image(lambda: iter(()))


def test_thinned_batches_keep_each_third_image(blobs, batches_of):
  images, labels = blobs(70, 0)
  kept = [batch["image"][batch["valid"]] for batch in thinned(batches_of(images, labels, 32), 3)()]
  np.testing.assert_array_equal(np.concatenate(kept), images[::3])


def coloured(count: int, seed: int, *, bright: bool) -> tuple[np.ndarray, np.ndarray]:
  """Images of 2 classes that differ in brightness, or only in which half is brighter."""
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, 2, count).astype(np.int32)
  images = draw.normal(128, 12, (count, 4, 4, 3))
  if bright:
    images += 25 * (2 * labels - 1)[:, None, None, None]
  else:
    images += draw.normal(0, 40, (count, 1, 1, 1))
    images[:, :2] += 10 * (2 * labels - 1)[:, None, None, None]
  return images.round().clip(0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("bright, form", [(True, MEAN), (False, TWICE)])
def test_the_form_that_tells_classes_apart_is_taken(bright, form, make_data, mesh_of):
  data = make_data(coloured(300, 0, bright=bright), coloured(10, 1, bright=bright), 2)
  found = strongest_pixels(data, mesh_of(8))
  assert found.protocol["centred"] == form
  assert found.protocol["forms"][form] > 0.03 + min(found.protocol["forms"].values())


def test_without_classes_images_are_centred_twice(blobs, make_data, mesh_of):
  images, labels = blobs(60, 0)
  found = strongest_pixels(make_data((images, labels * 0 - 1), (images, labels), 3), mesh_of(8))
  assert found.protocol["centred"] == TWICE and "forms" not in found.protocol


def test_on_the_embedded_sample_the_own_mean_is_kept(make_data, mesh_of):
  """Half of the sample; docs/results.md has the figures of the whole."""
  source = sources.cached(sources.make("sample", split="train[:4000]"))
  records = source.__getitems__(range(len(source)))
  images, labels = (np.stack([record[name] for record in records]) for name in ("image", "label"))
  found = strongest_pixels(make_data((images, labels), (images[:9], labels[:9]), 10, size=500), mesh_of(8))
  assert found.protocol["centred"] == MEAN
  assert found.protocol["forms"] == pytest.approx({MEAN: 0.33, TWICE: 0.25}, abs=0.04)
