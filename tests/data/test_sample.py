"""The embedded sample is complete, balanced, small, licensed, and needs neither TensorFlow nor a network."""

import subprocess
import sys

import numpy as np
import pytest

from ssl_jax.data import make_sample, sources


@pytest.fixture(scope="module")
def sample():
  return {split: sources.cached(sources.make("sample", split=split)) for split in ("train", "test")}


def test_counts_and_balance(sample):
  for split, per_class in (("train", 800), ("test", 200)):
    labels = [record["label"] for record in sample[split].__getitems__(range(len(sample[split])))]
    assert np.bincount(labels).tolist() == [per_class] * 10
  assert sample["train"].class_names[9] == "Ankle boot" and sample["train"].num_classes == 10


def test_images(sample):
  images = np.stack([record["image"] for record in sample["train"].__getitems__(range(500))])
  assert images.shape == (500, 32, 32, 3) and sample["train"].native_shape == (32, 32, 3)
  assert (images[..., 0] == images[..., 1]).all() and (images[..., 0] == images[..., 2]).all()
  assert not images[:, :2].any() and not images[:, :, -2:].any()  # padding
  assert 60 < images[:, 2:-2, 2:-2].mean() < 85  # 72.9 over the whole of Fashion-MNIST


def test_no_image_is_in_both_splits_or_twice(sample):
  seen = [record["image"].tobytes() for source in sample.values() for record in source]
  assert len(set(seen)) > 9990  # Fashion-MNIST itself holds a few duplicates


def test_size_and_licence():
  files = [path for path in sources.SAMPLE.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 8e6
  (notice,) = [path.read_text() for path in files if path.name == "LICENSE"]
  assert "2017 Zalando SE" in notice and "without restriction" in notice


def test_reading_needs_no_tensorflow():
  program = (
    "import sys; from ssl_jax.data import sources; sources.make('sample', split='test')[0]; "
    "print(sorted({'tensorflow', 'jax', 'grain'} & set(sys.modules)))"
  )
  assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_choice_is_balanced_and_repeatable():
  labels = np.random.default_rng(3).integers(0, 10, 20_000)
  chosen = make_sample.choose(labels, 700)
  assert np.bincount(labels[chosen]).tolist() == [700] * 10 and len(set(chosen.tolist())) == 7000
  np.testing.assert_array_equal(chosen, make_sample.choose(labels, 700))
