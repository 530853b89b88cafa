import jax
import numpy as np
import pytest

from ssl_jax.tasks.backbone import digest, mean_image, pixels

from .conftest import with_params


def test_pixels_are_centred_twice(blobs):
  images = blobs(20, 0)[0].astype(np.float32) / 255
  mean = images.mean(0)
  backbone = pixels(mean)
  expected = (images - mean).reshape(20, -1)
  expected = (expected - expected.mean(1, keepdims=True)) / np.sqrt(48)
  found = jax.jit(backbone.method.encode)(*backbone.weights, images)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  plain = pixels()
  found = plain.method.encode(*plain.weights, images)
  flat = images.reshape(20, -1)
  np.testing.assert_allclose(found, (flat - flat.mean(1, keepdims=True)) / np.sqrt(48), atol=1e-6)
  assert backbone.method.encode is plain.method.encode and "mean image" in backbone.protocol["centred"]


def test_mean_image_leaves_out_masked_rows(blobs, batches_of):
  images, labels = blobs(70, 0)
  np.testing.assert_allclose(mean_image(batches_of(images, labels, 64)), images.mean(0) / 255, atol=1e-6)
  with pytest.raises(ValueError, match="no images to compute a mean image from"):
    mean_image(lambda: iter(()))


def test_digest_sees_one_bit_and_one_name(dense):
  def changed(**weights):
    return digest(with_params(dense, {**dense.weights.params, **weights}))

  weight = dense.weights.params["weight"]
  other = weight.copy()
  other[3, 4] = np.nextafter(other[3, 4], np.float32(9))
  assert digest(dense) == changed(weight=jax.numpy.asarray(weight))
  assert digest(dense) != changed(weight=other)
  assert digest(dense) != changed(weight=weight.reshape(16, 48))
  assert digest(dense) != digest(with_params(dense, {"other": weight}))
  assert digest(dense) != digest(
    dense._replace(weights=dense.weights._replace(model_state={"mean": np.zeros(48, np.float32)}))
  )
  assert changed(key=jax.random.key(0)) != changed(key=jax.random.key(1))
