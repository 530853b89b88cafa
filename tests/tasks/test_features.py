import numpy as np
import pytest

from ssl_jax.tasks.backbone import encoder_only
from ssl_jax.tasks.features import extract, remembered
from tests.models.test_resize import adaptive_pool

from .conftest import with_params


def expected_features(dense, images):
  return (images.reshape(len(images), -1) / np.float32(255) - 0.5) @ dense.weights.params["weight"]


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_every_counting_row_is_encoded_once_in_order(dense, blobs, batches_of, mesh_of, devices):
  images, labels = blobs(150, 0)
  found = extract(dense, batches_of(images, labels, 64), mesh_of(devices))
  np.testing.assert_allclose(found.x, expected_features(dense, images), atol=1e-5)
  np.testing.assert_array_equal(found.y, labels)
  np.testing.assert_array_equal(found.index, np.arange(150))
  assert found.x.dtype == np.float32 and found.y.dtype == np.int32


def test_short_last_batch_compiles_nothing_new(dense, blobs, mesh_of):
  images, labels = blobs(100, 0)
  shapes = []

  def encode(params, model_state, images):
    shapes.append(images.shape)
    return dense.method.encode(params, model_state, images)

  def batches():
    for start in range(0, 100, 64):
      yield {"image": images[start : start + 64], "label": labels[start : start + 64]}

  backbone = dense.reading(encode)
  found = extract(backbone, batches, mesh_of(8))
  extract(backbone, batches, mesh_of(8))
  np.testing.assert_allclose(found.x, expected_features(dense, images), atol=1e-5)
  assert shapes == [(64, 4, 4, 3)]


def test_rows_come_in_the_order_of_their_index(dense, blobs, mesh_of):
  images, labels = blobs(60, 0)
  order = np.random.default_rng(0).permutation(60)

  def shuffled(rows):
    def batches():
      for part in np.split(rows, 3):
        yield {"image": images[part], "label": labels[part], "index": part}

    return batches

  found = extract(dense, shuffled(order), mesh_of(4))
  np.testing.assert_allclose(found.x, expected_features(dense, images), atol=1e-5)
  np.testing.assert_array_equal(found.y, labels)
  with pytest.raises(ValueError, match="3 of 60 evaluation rows were read twice; each process must read its"):
    extract(dense, shuffled(np.where(order < 3, 7, order)), mesh_of(4))


def test_remembered_extracts_once_per_backbone_split_and_layer(dense, blobs, batches_of, mesh_of):
  data, passes = batches_of(*blobs(64, 0)), []

  def counted():
    passes.append(1)
    return data()

  once, mesh = remembered(), mesh_of(1)
  assert once(dense, counted, mesh) is once(dense, counted, mesh)
  assert len(passes) == 1
  once(dense, counted, mesh, layer="late")
  once(with_params(dense, {"weight": dense.weights.params["weight"] * 2}), counted, mesh)
  assert len(passes) == 3


def test_a_layer_is_pooled_and_flattened(dense, blobs, batches_of, mesh_of):
  images, labels = blobs(64, 0)
  found = extract(dense, batches_of(images, labels), mesh_of(2), layer="early", grid=2)
  np.testing.assert_allclose(found.x, adaptive_pool(images / np.float32(255), 2).reshape(64, -1), atol=1e-6)


def test_what_cannot_be_extracted_is_named(dense, blobs, batches_of, mesh_of):
  images, labels = blobs(64, 0)
  data, mesh = batches_of(images, labels), mesh_of(1)
  with pytest.raises(ValueError, match="unknown layer 'middle'; this backbone has 'early', 'late'"):
    extract(dense, data, mesh, layer="middle")
  with pytest.raises(
    ValueError, match="layer='late' needs a network with the ability Pyramid, which 'dense' does not have"
  ):
    extract(dense._replace(method=encoder_only(dense.method.encode)), data, mesh, layer="late")
  with pytest.raises(ValueError, match="grid=0 cells per side"):
    extract(dense, data, mesh, layer="late", grid=0)
  with pytest.raises(ValueError, match="the split is empty"):
    extract(dense, lambda: iter(()), mesh)
  with pytest.raises(ValueError, match=r"must be uint8\[B, ..., H, W, 3\], but they are float32\[64, 4, 4"):
    extract(dense, batches_of(images.astype(np.float32), labels), mesh)
  with pytest.raises(
    ValueError,
    match=r"features must be \[B, ...\] with at least one axis behind the batch axis, but they are \(64,\)",
  ):
    extract(dense.reading(lambda params, model_state, images: images.sum((1, 2, 3))), data, mesh)
  with pytest.raises(ValueError, match="features of 64 of 64 images are not finite"):
    extract(with_params(dense, {"weight": dense.weights.params["weight"] * np.float32(np.nan)}), data, mesh)
