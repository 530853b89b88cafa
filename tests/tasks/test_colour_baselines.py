"""Baselines of colours: by hand, and that they see colours and nothing else."""

import jax
import numpy as np
import pytest

from ssl_jax import tasks
from ssl_jax.tasks.colour_baselines import colour_histogram, colour_statistics

KEY = jax.random.key(0)


def features(backbone, images):
  return np.asarray(jax.jit(backbone.method.encode)(*backbone.weights, np.asarray(images, np.float32)))


def test_the_histogram_is_the_root_of_fractions_of_pixels():
  image = np.zeros((1, 2, 2, 3), np.float32)
  image[0, 0, 0] = [1.0, 0.5, 0.13]  # bins 7, 4 and 1
  found = features(colour_histogram(), image)
  assert found.shape == (1, 512)
  expected = np.zeros(512)
  expected[[0, 7 * 64 + 4 * 8 + 1]] = np.sqrt([0.75, 0.25])
  np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_statistics_are_standardised_over_the_valid_images(blobs, batches_of):
  images, labels = blobs(70, 0)
  backbone = colour_statistics(batches_of(images, labels, 64))
  scaled = images.astype(np.float32) / 255
  six = np.concatenate([scaled.mean((1, 2)), scaled.std((1, 2))], 1)
  np.testing.assert_allclose(features(backbone, scaled), (six - six.mean(0)) / six.std(0), atol=1e-3)
  with pytest.raises(ValueError, match="no images to compute statistics of colours from"):
    colour_statistics(lambda: iter(()))


def test_only_colours_are_seen(blobs, batches_of):
  images, labels = blobs(10, 0)
  shuffled = np.random.default_rng(0).permutation(images.reshape(10, -1, 3), axis=1).reshape(images.shape)
  for backbone in (colour_histogram(), colour_statistics(batches_of(images, labels))):
    found, again = (features(backbone, array / 255) for array in (images, shuffled))
    np.testing.assert_allclose(found, again, atol=2e-3)
    assert np.abs(found[0] - found[1]).max() > 0.1


@pytest.mark.parametrize("name", ["colour_histogram", "colour_statistics"])
@pytest.mark.parametrize(
  "task, options",
  [("knn", dict(k=5)), ("linear_probe", dict(learning_rates=(1.0,), epochs=20, batch_size=32))],
)
def test_tasks_that_read_features_measure_them(name, task, options, blobs, make_data, mesh_of):
  data = make_data(blobs(96, 0), blobs(48, 1), 3)
  backbone = colour_histogram() if name == "colour_histogram" else colour_statistics(data.train)
  found = tasks.make(**{"task": task, **options}).run(backbone, data, mesh_of(1), KEY)
  assert next(iter(found.scalars.values())) > 0.5  # a third by chance
  assert found.protocol["backbone"] == name.replace("_", " ")
