"""The host transform of frames with bits."""

import numpy as np
import pytest

from ssl_jax.data import host
from ssl_jax.data.reader import Source
from ssl_jax.data.sources import make

RECORD = {
  "image": np.full((8, 8, 3), 7, np.uint8),
  "label": 3,
  "bits": np.array([True, False, True]),
  "clip_name": "a/b.mp4",
}


def test_an_example_has_the_declared_elements():
  transform = host.make("image_bits", host.Frame(8), bits=3)
  made = transform(None, RECORD)
  assert set(made) == set(transform.elements) == {"image", "label", "bits", "clip_number"}
  for name, spec in transform.elements.items():
    assert np.shape(made[name]) == spec.shape, name
  np.testing.assert_array_equal(made["bits"], RECORD["bits"])
  number = lambda name: int(transform(None, {**RECORD, "clip_name": name})["clip_number"])
  assert number("a/b.mp4") == int(made["clip_number"]) != number("a/c.mp4") and number("a/b.mp4") >= 0


def test_another_number_of_bits_and_a_source_without_bits_are_refused():
  with pytest.raises(ValueError, match="a record has 3 bits, but config.host.bits is 30; use 3"):
    host.make("image_bits", host.Frame(8))(None, RECORD)
  with pytest.raises(ValueError, match="config.host.bits is 0; use the number of bits"):
    host.make("image_bits", host.Frame(8), bits=0)
  source: Source = make("sample")
  transform = host.make("image_bits", host.Frame(8))
  with pytest.raises(ValueError, match="needs 'bits' and 'clip_name' in every record"):
    host.check_source("image_bits", transform, source)
