"""The embedded sample is complete, balanced, small, licensed, and needs neither TensorFlow nor a network."""

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import make_sample, sources
from ssl_jax.models.normalize import NORMALIZE


@pytest.fixture(scope="module")
def sample():
  return {split: sources.cached(sources.make("sample", split=split)) for split in ("train", "test")}


def test_counts_and_balance(sample):
  """Eight of the 800 training images of each class were doubles, all of the sea."""
  for split, sea in (("train", 792), ("test", 200)):
    labels = [record["label"] for record in sample[split].__getitems__(range(len(sample[split])))]
    assert np.bincount(labels).tolist() == [{"train": 800, "test": 200}[split]] * 9 + [sea]
  assert sample["train"].class_names[9] == "SeaLake" and sample["train"].num_classes == 10
  assert sources.SIZES["sample"] == (len(sample["train"]), 10)


def test_images(sample):
  train = sample["train"]
  images = np.stack([record["image"] for record in train.__getitems__(range(len(train)))]) / 255
  assert images.shape[1:] == (32, 32, 3) and sample["train"].native_shape == (32, 32, 3)
  found = images.reshape(-1, 3).mean(0), images.reshape(-1, 3).std(0)
  np.testing.assert_allclose(found, NORMALIZE["eurosat"], atol=1e-4)


def test_no_image_is_in_both_splits_or_twice(sample):
  seen = [record["image"].tobytes() for source in sample.values() for record in source]
  assert len(set(seen)) == len(seen) == 9992


def test_size_and_licence():
  files = [path for path in sources.SAMPLE.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 8e6
  (notice,) = [path.read_text() for path in files if path.name == "LICENSE"]
  assert "2023 Patrick Helber" in notice and "without restriction" in notice
  assert "modified Copernicus Sentinel data" in notice


def test_reading_needs_no_tensorflow():
  program = (
    "import sys; from ssl_jax.data import sources; sources.make('sample', split='test')[0]; "
    "print(sorted({'tensorflow', 'jax', 'grain'} & set(sys.modules)))"
  )
  assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_doubles_are_dropped_and_test_images_stay(tmp_path):
  def encoded(level: int, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (level, level, level)).save(buffer, "WEBP", lossless=True, quality=quality)
    return buffer.getvalue()

  written = {
    "test": {"River/2.webp": encoded(40, 10), "River/1.webp": encoded(50, 10)},
    "train": {
      "Forest/9.webp": encoded(40, 90),
      "Forest/8.webp": encoded(60, 10),
      "Forest/7.webp": encoded(60, 90),
    },
  }
  archives = {split: tmp_path / f"{split}.zip" for split in written}
  for split, path in archives.items():
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("labels.csv", "")
      for name, data in written[split].items():
        archive.writestr(name, data)
  found = make_sample.choose(archives)
  assert {split: list(images) for split, images in found.items()} == {
    "test": ["River/1.webp", "River/2.webp"],
    "train": ["Forest/7.webp"],
  }
