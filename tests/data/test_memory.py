"""Batches of records in memory: taken at once, equal to those that are read one by one."""

import numpy as np
import pytest

from ssl_jax.data import pipeline, reader, sources
from ssl_jax.data.memory import MemoryReader, Stored

KEPT = dict(image=np.zeros((4, 2), np.uint8), label=np.zeros(4, np.int32))


@pytest.fixture
def held():
  """Synthetic images in memory, and the transform that reads them."""
  source = sources.cached(sources.make("synthetic", split="train[:50]", image_size=8))
  assert isinstance(source.reader, MemoryReader)
  elements = sources.Decode(sources._native_elements(source)).elements
  return source, Stored(elements)


def train(source, transform, **options):
  options = dict(batch_size=16, seed=3, start=0, stop=7, transform=transform) | options
  return list(pipeline.train_batches(source, **options))


def equal(one, other):
  for a, b in zip(one, other, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_batches_are_those_of_single_records(held, monkeypatch):
  source, transform = held
  train_rows = train(source, transform, positions=[1, 5, 15])
  test_rows = list(pipeline.eval_batches(source, batch_size=16, transform=transform))
  assert not test_rows[-1]["valid"][2:].any() and not test_rows[-1]["image"][2:].any()
  with monkeypatch.context() as patch:
    patch.setattr(MemoryReader, "take", lambda *_: False)
    equal(train(source, transform, positions=[1, 5, 15]), train_rows)
    equal(pipeline.eval_batches(source, batch_size=16, transform=transform), test_rows)
  monkeypatch.setattr(MemoryReader, "read", None)  # no record is read by itself
  equal(train(source, transform, positions=[1, 5, 15]), train_rows)


def test_a_batch_with_a_bad_record_is_read_one_by_one(held):
  source, transform = held
  source.reader.bad[7] = "damaged"
  batches = pipeline.train_batches(
    source, batch_size=16, seed=0, start=0, stop=3, transform=transform, max_bad_fraction=0.1
  )
  assert len(list(batches)) == 3 and list(batches.bad.values()) == ["damaged"]
  into = {name: array.copy() for name, array in KEPT.items()}
  reader = MemoryReader({name: array + 5 for name, array in KEPT.items()}, {2: "damaged"}, source.reader)
  assert not reader.take(np.array([0, 2, 1, 1]), np.array([True, True, True, True]), into)
  assert reader.take(np.array([0, 2, 1, 1]), np.array([True, False, True, True]), into)
  assert into["label"].tolist() == [5, 0, 5, 5]


def test_the_input_rate_counts_the_threads_that_take_batches(held):
  """Two of them read ahead, however many decode."""
  source, transform = held
  options = dict(batch_size=16, seed=0, start=0, stop=2, transform=transform, threads=3)
  with pipeline.train_batches(source, **options) as batches:
    assert batches._concurrency == min(2, reader.cores())
    next(batches)
    batches._seconds.clear()
    batches._seconds.extend([0.5, 0.25])
    assert batches.input_rate() == batches._concurrency * 16 * 2 / 0.75
