"""The host's part of a plan: what decoding and transforming takes, and whether a host feeds its chips."""

import dataclasses
import io
import time

import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.schema import TrainConfig
from ssl_jax.data import host, transforms
from ssl_jax.planning import chips, host_work
from ssl_jax.planning.write import _input
from tests.recipes import train_recipes

HOST = chips.Host(112, 4, "a table")


def config(name: str = "moco_v2.py", **overrides) -> TrainConfig:
  found = train_recipes()[f"pretrain/{name}"]
  return dataclasses.replace(found, data=dataclasses.replace(found.data, **overrides))


def test_the_photograph_is_like_those_of_imagenet():
  with Image.open(io.BytesIO(host_work.photograph())) as image:
    assert image.size == (500, 375) and image.mode == "RGB"
  assert 60_000 < len(host_work.photograph()) < 160_000


def test_a_transform_that_takes_longer_has_a_lower_rate():
  class Slow:
    """Burns a hundredth of a second of processor time."""

    random, elements = True, {}

    def __call__(self, rng, record):
      began = time.thread_time()
      while time.thread_time() - began < 0.01:
        pass

  assert 50 < host_work.rate_of(Slow()) <= 100
  both = host.ImageAndLabel(transforms.random_resized_crop(224, scale=(0.2, 1.0), views=2))
  seen = []
  spied = type(
    "Spied", (), {"random": True, "__call__": lambda self, rng, record: seen.append(both(rng, record))}
  )
  rate = host_work.rate_of(spied())
  assert rate > 1 and len(seen) > host_work.IMAGES and seen[0]["image"].shape == (2, 224, 224, 3)
  assert not np.array_equal(seen[0]["image"], seen[1]["image"])  # each image has its own crops


@pytest.mark.parametrize("wanted, feeds", [(2799, True), (2801, False)])
def test_processors_are_compared_a_chip(monkeypatch, wanted, feeds):
  monkeypatch.setattr(host_work, "rate_of", lambda transform: 100.0)
  found = host_work.host_work(config(), HOST, wanted)
  assert found["processors"] == 28 and found["processors_needed"] == wanted / 100
  assert found["feeds"] is feeds
  assert ("enough" in _input(found)) is feeds


def test_a_host_that_is_too_slow_is_told_by_how_much(monkeypatch):
  monkeypatch.setattr(host_work, "rate_of", lambda transform: 100.0)
  assert "TOO FEW, the chip waits 50% of the time" in _input(host_work.host_work(config(), HOST, 5600))


def test_what_is_held_in_memory_and_what_is_no_image_is_not_measured():
  assert "held in memory" in _input(host_work.host_work(config(cache=True), HOST, 1e6))
  found = host_work.host_work(config("policy.py:cartpole_swingup"), HOST, 1.0)
  assert "frames and action" in _input(found)


def test_every_chip_has_a_host():
  assert chips.HOSTS.keys() == chips.CHIPS.keys()
