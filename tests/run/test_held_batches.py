"""Batches that the devices gather: those of the host bit for bit, from any step, bad records replaced."""

import dataclasses

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.data import pipeline
from ssl_jax.run.assembly import open_data
from ssl_jax.run.held_batches import HeldBatches
from ssl_jax.run.train import train


def config(**data) -> TrainConfig:
  """A run of five steps on synthetic images."""
  return check(
    TrainConfig,
    recipe(
      method=dict(name="mae", decoder_width=8, decoder_depth=1, decoder_heads=2),
      encoder=dict(name="vit", width=16, depth=1, heads=2, patch=4),
      augment=dict(name="none", views=1, size=16),
      optimizer=dict(name="adamw", learning_rate=1e-3),
      data={**dict(name="synthetic", split="train[:60]", size=16, cache=True, device_cache=True), **data},
      batch_size=16,
      epochs=1.7,
    ),
  )


OPTIONS = dict(batch_size=16, seed=5, max_bad_fraction=0.1)


def held_and_read(source, transform, start: int):
  """Both kinds of the batches of the steps from `start` to 7."""
  mesh = parallel.make_mesh()
  with HeldBatches(source, mesh, steps=range(start, 8), **OPTIONS) as held:
    found = [jax.device_get(batch) for batch in held]
    sharded = {
      leaf.sharding for leaf in HeldBatches(source, mesh, steps=range(1), **OPTIONS).__next__().values()
    }
  assert sharded == {parallel.along_data(mesh)} and np.isnan(held.input_rate())
  read = pipeline.train_batches(source, start=start, stop=8, transform=transform, **OPTIONS)
  return found, list(read)


@pytest.mark.parametrize("start, bad", [(0, ()), (3, ()), (0, (7, 8, 59))])
def test_batches_are_those_of_the_host(start, bad):
  source, transform = open_data(config())
  source.reader.bad.update(dict.fromkeys(bad, "damaged"))
  held, read = held_and_read(source, transform, start)
  assert len(held) == len(read) == 8 - start
  for one, other in zip(held, read):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
      assert one[name].dtype == other[name].dtype


def test_too_many_bad_records_and_too_little_memory_are_told(monkeypatch):
  source, _ = open_data(config())
  mesh = parallel.make_mesh()
  monkeypatch.setattr(parallel, "memory_limit", lambda _: 90_000)
  with pytest.raises(
    ValueError, match="device_cache is True, but the data take .* GiB of the .* GiB of each"
  ):
    HeldBatches(source, mesh, steps=range(1), **OPTIONS)
  source.reader.bad.update(dict.fromkeys(range(7), "damaged"))
  with pytest.raises(ValueError, match="7 of 60 images cannot be decoded, 6 are allowed"):
    HeldBatches(source, mesh, steps=range(1), **OPTIONS)


def test_a_run_has_the_same_bits_and_goes_on_either_way(tmp_path):
  one = train(config(), tmp_path / "device")
  options = dict(device_cache=False, cache=False)
  other = train(config(**options), tmp_path / "host")
  longer = [dataclasses.replace(config(**some), epochs=2.7) for some in (options, {})]
  resumed = [train(c, tmp_path / d, force=True) for c, d in zip(longer, ("device", "host"))]
  for a, b in ((one, other), resumed):
    for left, right in zip(*map(jax.tree.leaves, (a.params, b.params)), strict=True):
      np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(cache=False), "device_cache is True, but config.data.cache is not; set cache=True"),
    (
      dict(name="sample", split="train[:40]", size=64),
      "the images grow when they are resized.*use device_cache=False",
    ),
  ],
)
def test_what_the_devices_cannot_hold_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    open_data(config(**changes))
