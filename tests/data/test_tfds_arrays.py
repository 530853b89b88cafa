"""Tests of arrays and sequences of images in TFDS data sets."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ssl_jax.data.decode import decode
from tests.data.written_tfds import write


def png(value: int) -> io.BytesIO:
  buffer = io.BytesIO()
  Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, "PNG")
  buffer.seek(0)
  return buffer


def test_arrays_and_sequences_of_images_are_fields_with_their_names(tmp_path):
  features = {
    "frames": tfds.features.Sequence(tfds.features.Image(encoding_format="png"), length=3),
    "bits": tfds.features.Tensor(shape=(2, 2), dtype=np.bool_),
    "sound": tfds.features.Tensor(shape=(3,), dtype=np.float32),
    "time": np.float32,
    "clip": tfds.features.Text(),
    "label": tfds.features.ClassLabel(num_classes=4),
  }
  examples = [
    {
      "frames": [png(10 * i + j) for j in range(3)],
      "bits": np.array([[True, False], [False, bool(i)]]),
      "sound": np.array([0.5, 0.0, i], np.float32),
      "time": 0.5,
      "clip": "a.mp4",
      "label": i,
    }
    for i in range(2)
  ]
  source = write(tmp_path, "made", features, examples)
  assert source.fields == ("label", "bits", "sound", "frames", "clip_name") and source.num_classes == 4
  for record in source[0], source[1]:
    i = record["label"]
    assert [int(decode(frame)[0, 0, 0]) for frame in record["frames"]] == [10 * i + j for j in range(3)]
    np.testing.assert_array_equal(record["bits"], [[True, False], [False, bool(i)]])
    np.testing.assert_array_equal(record["sound"], np.array([0.5, 0, i], np.float32))
    assert record["bits"].dtype == np.bool_ and record["sound"].dtype == np.float32
    assert record["clip_name"] == "a.mp4" and "image" not in record and "time" not in record
