"""MoCo's bookkeeping, with a one-layer network so that every step is cheap."""

import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import losses, methods, parallel
from ssl_jax.core import DataSpec, Weights, make_init, make_train_step
from ssl_jax.methods import moco
from ssl_jax.models import network
from ssl_jax.models.norm import BatchNorm
from ssl_jax.planning.hlo import collectives

BATCH, QUEUE, DIM = 4, 12, 3


class OneLayer(nn.Module):
  """Flatten, a dense layer and BatchNorm in groups: the smallest encoder with statistics."""

  batch_groups: int = 2

  @nn.compact
  def __call__(self, images, *, train, pyramid=False):
    return BatchNorm(train, groups=self.batch_groups)(nn.Dense(5)(images.reshape(len(images), -1)))


def make(**options):
  options = {"queue_size": QUEUE, "dim": DIM, "momentum": 0.9, "temperature": 0.2, **options}
  return methods.make("moco", network(OneLayer()), DataSpec(100, 10, BATCH), **options)


def views(step: int) -> dict:
  return {"views": jax.random.normal(jax.random.key(100 + step), (BATCH, 2, 2, 2, 3))}


@functools.cache
def history(steps: int = 5, **options):
  """Returns the states before and after each step."""
  method = make(**options)
  same = lambda key, batch: batch
  sgd = optax.sgd(0.1)
  step = jax.jit(make_train_step(method, same, sgd))
  states = [jax.jit(make_init(method, same, sgd))(jax.random.key(0), views(0))]
  for i in range(steps):
    states.append(step(states[-1], views(i))[0])
  return method, states


def test_key_encoder_starts_as_a_copy_and_the_queue_on_the_sphere():
  _, states = history()
  jax.tree.map(
    np.testing.assert_array_equal, states[0].extra.ema, Weights(states[0].params, states[0].model_state)
  )
  np.testing.assert_allclose(np.linalg.norm(states[0].extra.queue, axis=1), 1, rtol=1e-5)


def test_key_encoder_of_every_forward_pass_is_the_published_ones():
  """The published code first updates the average, with the parameters before the update of this step, and
  then encodes the keys.
  """
  _, states = history()
  published = states[0].params
  for state in states:
    published = jax.tree.map(lambda k, q: 0.9 * k + 0.1 * q, published, state.params)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.extra.ema.params, published
    )


@pytest.mark.parametrize("momentum, source", [(1.0, "first"), (0.0, "now")])
def test_extreme_momenta(momentum, source):
  _, states = history(3, momentum=momentum)
  expected = states[0].params if source == "first" else states[-1].params
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6), states[-1].extra.ema.params, expected
  )


def test_queue_is_first_in_first_out():
  method, states = history()
  for i, (before, after) in enumerate(zip(states, states[1:])):
    _, loss_key = jax.random.split(jax.random.fold_in(before.key, before.step))
    _, aux = method.loss(before.params, before.model_state, before.extra, views(i), loss_key)
    expected = np.array(before.extra.queue)
    place = i * BATCH % QUEUE
    expected[place : place + BATCH] = aux.carry.rows
    np.testing.assert_allclose(after.extra.queue, expected, rtol=1e-5, atol=1e-6)
    assert int(after.extra.cursor) == (i + 1) * BATCH % QUEUE


def test_this_steps_keys_are_not_negatives_of_their_own_step():
  method, states = history()
  state = states[2]
  own, _ = method.loss(state.params, state.model_state, state.extra, views(2), jax.random.key(5))
  queries, _ = make_net_outputs(state, views(2)["views"][:, 0])
  _, aux = method.loss(state.params, state.model_state, state.extra, views(2), jax.random.key(5))
  by_hand, _ = losses.info_nce(losses.unit(queries), aux.carry.rows, state.extra.queue, temperature=0.2)
  np.testing.assert_allclose(own, by_hand.mean(), rtol=1e-5)


def make_net_outputs(state, images):
  from ssl_jax.models import heads, stack

  return stack(network(OneLayer()), network(heads.Linear(DIM))).apply(
    Weights(state.params, state.model_state), images, train=True
  )


def test_key_statistics_run_on_their_own():
  _, states = history()
  query, key = (
    s["encoder"]["batch_stats"]["BatchNorm_0"]["mean"]
    for s in (states[-1].model_state, states[-1].extra.ema.model_state)
  )
  assert np.abs(query - key).max() > 1e-4


def test_statistics_of_queries_and_of_keys_decay_once_a_step_in_parts_too():
  """Two parts of four images: each has half of the groups, and both encoders see the mean over the parts."""
  images = {"views": jax.random.normal(jax.random.key(100), (8, 2, 2, 2, 3))}
  sgd, same, found = optax.sgd(0.1), lambda key, batch: batch, {}
  for parts in (1, 2):
    data = DataSpec(100, 10, 8, parts=parts)
    method = methods.make("moco", network(OneLayer(4 // parts)), data, queue_size=16, dim=DIM)
    start = jax.jit(make_init(method, same, sgd))(jax.random.key(0), images)
    state, _ = jax.jit(make_train_step(method, same, sgd, accumulate=parts))(start, images)
    statistics = [s["encoder"]["batch_stats"] for s in (state.model_state, state.extra.ema.model_state)]
    found[parts] = [s["BatchNorm_0"]["mean"] for s in statistics]
  np.testing.assert_allclose(found[2], found[1], rtol=1e-5)


def test_groups_are_checked_within_a_part():
  with pytest.raises(ValueError, match="3 BatchNorm groups of 8 images cannot be shuffled"):
    methods.make("moco", network(OneLayer(3)), DataSpec(100, 10, 72, parts=3), queue_size=144, dim=DIM)


def test_shuffled_keys_come_back_in_order():
  """With one BatchNorm group the shuffle must not change a key; with several it must."""
  state = history()[1][1]
  keys = {}
  for groups in (1, 2):
    for shuffle in (False, True):
      method = methods.make(
        "moco",
        network(OneLayer(groups)),
        DataSpec(100, 10, BATCH),
        queue_size=QUEUE,
        dim=DIM,
        shuffle=shuffle,
      )
      keys[groups, shuffle] = method.loss(
        state.params, state.model_state, state.extra, views(7), jax.random.key(0)
      )[1].carry.rows
  np.testing.assert_array_equal(keys[1, True], keys[1, False])
  assert np.abs(keys[2, True] - keys[2, False]).max() > 1e-2


@pytest.mark.parametrize(
  "batch, groups, shared", [(256, 8, 1 / 8), (4096, 128, 1 / 8), (4, 2, 1 / 2), (96, 4, 1 / 4), (256, 1, 1)]
)
def test_a_deal_parts_the_images_of_a_group_and_a_second_restores_them(batch, groups, shared):
  rows = jnp.arange(batch)
  dealt = moco.exchange_between_groups(rows, groups)
  np.testing.assert_array_equal(np.sort(dealt), rows)
  np.testing.assert_array_equal(moco.exchange_between_groups(dealt, groups), rows)
  # the group from which each image of a group comes
  before = np.asarray(dealt).reshape(groups, -1) // (batch // groups)
  for group in before:
    assert np.bincount(group).max() == shared * (batch // groups)


def test_devices_exchange_what_they_hold_and_share_the_work():
  """Each of eight devices encodes its own keys. It receives only the images that are exchanged with it."""
  batch = 64
  method = methods.make("moco", network(OneLayer(8)), DataSpec(1000, 10, batch), queue_size=128, dim=DIM)
  parts = (method, lambda key, views: views, optax.sgd(0.1))
  images = {"views": jax.ShapeDtypeStruct((batch, 2, 2, 2, 3), jnp.float32)}
  mesh = parallel.make_mesh()
  state = jax.eval_shape(make_init(*parts), jax.random.key(0), images)
  step = (
    parallel.compile_step(make_train_step(*parts), mesh, parallel.state_sharding(state, mesh))
    .lower(state, images)
    .compile()
  )
  found = collectives(step.as_text())
  assert found["all-to-all"]["bytes"] <= 8 * (2 * 2 * 3 + DIM) * 4
  assert (
    "collective-permute" not in found and found.get("all-gather", {"bytes": 0})["bytes"] <= batch * DIM * 4
  )


def test_groups_that_cannot_exchange_images_are_refused():
  with pytest.raises(
    ValueError,
    match="3 BatchNorm groups of 25 images cannot be shuffled: the two numbers have no common divisor",
  ):
    methods.make("moco", network(OneLayer(3)), DataSpec(1000, 10, 75), queue_size=150, dim=DIM)
  methods.make("moco", network(OneLayer(3)), DataSpec(1000, 10, 75), queue_size=150, dim=DIM, shuffle=False)


@pytest.mark.parametrize(
  "options, message",
  [
    (
      dict(queue_size=10),
      r"queue_size 10 is not a multiple of config.batch_size 4; the nearest queue sizes are 8 and 12",
    ),
    (dict(momentum=1.5), "momentum is 1.5; use a value in"),
    (dict(temperature=0.0), "temperature is 0.0; use a positive one"),
    (dict(tempersture=0.1), "tempersture is unknown; did you mean 'temperature'"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_lectures_sizes_name_their_neighbours():
  with pytest.raises(ValueError, match="nearest queue sizes are 59904 and 60160"):
    methods.make("moco", network(OneLayer()), DataSpec(10**6, 10, 256), queue_size=60000, dim=512)
  methods.make("moco", network(OneLayer(5)), DataSpec(10**6, 10, 250), queue_size=60000, dim=512)


def test_queue_longer_than_the_data_warns_what_it_does(caplog):
  with caplog.at_level(logging.WARNING):
    methods.make("moco", network(OneLayer()), DataSpec(6, 10, BATCH), queue_size=QUEUE)
  assert "2.0 older keys of each image are among its own negatives" in caplog.text


def test_eight_groups_mean_the_same_on_one_device_and_on_eight():
  batch = 64
  method = methods.make("moco", network(OneLayer(8)), DataSpec(1000, 10, batch), queue_size=128, dim=DIM)
  parts = (method, lambda key, views: views, optax.sgd(0.1))
  views = {"views": np.random.default_rng(0).normal(size=(batch, 2, 2, 2, 3)).astype(np.float32)}
  found = []
  for devices in (1, 8):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    state = jax.jit(make_init(*parts))(jax.random.key(0), views)
    shardings = parallel.state_sharding(state, mesh)
    step = parallel.compile_step(make_train_step(*parts), mesh, shardings)
    state = jax.device_put(state, shardings)
    for _ in range(3):
      state, _ = step(state, parallel.to_devices(views, mesh))
    found.append(jax.device_get((state.params, state.model_state, state.extra)))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *found)
