"""A checkpoint of four devices, replicated or sharded, is restored bit-identical on one and on eight."""

import functools

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints

BATCH = 16


@functools.cache
def config(sharding: str) -> TrainConfig:
  return check(
    TrainConfig,
    recipe(
      method=dict(name="moco", dim=16, queue_size=64),
      encoder=dict(name="resnet10", width=16, stem="small"),
      augment=dict(name="moco_v2", views=2, size=16),
      optimizer=dict(name="adamw", learning_rate=0.03),
      data=dict(name="synthetic", size=16),
      batch_size=BATCH,
      epochs=1.0,
      sharding=sharding,
    ),
  )


def place(sharding: str, devices: int):
  """Returns (abstract state, a function that makes the initial state)."""
  made = config(sharding)
  return abstract_state(
    assemble(made, DataSpec(1000, 10, BATCH)), made, parallel.make_mesh(jax.devices()[:devices])
  )


def bits(state):
  return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Returns {sharding: (workdir, state)} of checkpoints saved by four devices."""
  found = {}
  for sharding in ("replicate", "fsdp"):
    workdir = tmp_path_factory.mktemp(sharding)
    abstract, init = place(sharding, 4)
    state = init()
    assert sharding == "replicate" or any(
      not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves((state.params, state.opt_state))
    )
    with Checkpoints(workdir, keep=1) as checkpoints:
      checkpoints.save(state, {"config": {}}, step=3)
      checkpoints.wait()
    found[sharding] = workdir, bits(state)
  return found


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("after", ["replicate", "fsdp"])
@pytest.mark.parametrize("before", ["replicate", "fsdp"])
def test_a_state_saved_by_four_devices_is_the_same_on_one_and_on_eight(before, after, devices, saved):
  workdir, expected = saved[before]
  abstract, _ = place(after, devices)
  with Checkpoints(workdir) as checkpoints:
    state = checkpoints.restore(3, abstract)
  assert all(
    jax.tree.leaves(
      jax.tree.map(
        lambda leaf, like: leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim), state, abstract
      )
    )
  )
  jax.tree.map(np.testing.assert_array_equal, bits(state), expected)
