"""The training step: splitting a batch into parts must not change the result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models, parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import Aux, Carry, DataSpec, Init, Method, make_init, make_train_step
from ssl_jax.metrics import Mean
from ssl_jax.models.norm import BatchNorm
from ssl_jax.planning.hlo import collectives
from ssl_jax.run.assembly import assemble

BATCH = 32


def toy() -> Method:
  """A matrix with a loss that is a mean over images; carries rows and a mean, and counts the calls of the
  loss.
  """

  def init(key, batch):
    return Init(
      {"w": jax.random.normal(key, (12, 3))},
      {"asked": jnp.zeros(()), "frozen": jax.random.normal(key, (50,))},
      {"queue": jnp.zeros((BATCH, 3)), "mean": jnp.zeros(3)},
    )

  def loss(params, model_state, extra, batch, key):
    out = jnp.tanh(batch["image"].reshape(len(batch["image"]), -1) @ params["w"])
    wrong = jnp.square(out[:, 0] - batch["label"])
    return wrong.mean(), Aux(
      {**model_state, "asked": model_state["asked"] + 1},
      Carry(out, out.mean(0)),
      {"small": Mean.of(wrong < 1)},
    )

  return Method(
    init, loss, lambda extra, params, carry: {"queue": carry.rows, "mean": carry.means}, lambda p, s, x: x
  )


@functools.cache
def batch():
  draw = np.random.default_rng(0)
  return {
    "image": draw.normal(size=(BATCH, 2, 2, 3)).astype(np.float32),
    "label": draw.normal(size=BATCH).astype(np.float32),
  }


@functools.cache
def after(accumulate: int, devices: int):
  parts = (toy(), lambda key, batch: batch, optax.sgd(0.1))
  mesh = parallel.make_mesh(jax.devices()[:devices])
  state = jax.jit(make_init(*parts))(jax.random.key(0), batch())
  shardings = parallel.state_sharding(state, mesh)
  step = parallel.compile_step(make_train_step(*parts, accumulate=accumulate), mesh, shardings)
  lowered = step.lower(state, parallel.to_devices(batch(), mesh)).compile()
  state, metrics = lowered(jax.device_put(state, shardings), parallel.to_devices(batch(), mesh))
  return jax.device_get(
    (state.params, state.extra, {name: (m.total, m.count) for name, m in metrics.items()}, state.model_state)
  ), lowered


@pytest.mark.parametrize("accumulate, devices", [(2, 1), (4, 1), (4, 8), (1, 8)])
def test_a_batch_in_parts_is_the_batch(accumulate, devices):
  (found, state), (expected, _) = [((o[0][:3]), o[0][3]) for o in (after(accumulate, devices), after(1, 1))]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)
  assert state["asked"] == 1  # the model state is updated once a step


def test_weights_that_are_frozen_in_the_model_state_keep_their_bits_in_three_parts():
  parts = (toy(), lambda key, batch: {name: leaf[:30] for name, leaf in batch.items()}, optax.sgd(0.1))
  start = jax.jit(make_init(*parts))(jax.random.key(0), batch())
  state, _ = jax.jit(make_train_step(*parts, accumulate=3))(start, batch())
  np.testing.assert_array_equal(state.model_state["frozen"], start.model_state["frozen"])


def test_parts_cost_no_exchange_of_images():
  found = collectives(after(4, 8)[1].as_text())
  assert found.keys() == {"all-reduce", "all-gather"}
  assert found["all-gather"] == {"count": 1, "bytes": BATCH * 3 * 4}  # the carried rows, which are replicated


def test_accumulation_needs_fewer_temporaries():
  method = methods.make(
    "supervised", models.make("resnet10", width=8, stem="cifar", norm="group"), DataSpec(100, 10, 64)
  )
  images = {
    "image": jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32),
    "label": jax.ShapeDtypeStruct((64,), jnp.int32),
  }
  parts = (method, lambda key, batch: batch, optax.sgd(0.1))
  state = jax.eval_shape(make_init(*parts), jax.random.key(0), images)
  sizes = [
    jax.jit(make_train_step(*parts, accumulate=n))
    .lower(state, images)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
    for n in (1, 8)
  ]
  assert sizes[1] < 0.3 * sizes[0]


@pytest.mark.parametrize(
  "size, accumulate, message",
  [(24, 2, "batch_size 24 is not divisible by 8 devices times config.accumulate 2; use a multiple of 16")],
)
def test_parts_must_divide_a_devices_rows(size, accumulate, message):
  with pytest.raises(ValueError, match=message):
    parallel.check_batch(size, parallel.make_mesh(), accumulate)


def tiny(batch_groups: int, accumulate: int) -> TrainConfig:
  made = recipe(
    method=dict(name="moco", dim=8, queue_size=64),
    encoder=dict(name="resnet10", width=8, stem="small", batch_groups=batch_groups),
    augment=dict(name="moco_v2", views=2, size=16),
    optimizer=dict(learning_rate=0.03),
    data=dict(name="synthetic", split="train[:128]", size=16),
    batch_size=32,
    epochs=1.0,
    accumulate=accumulate,
  )
  return check(TrainConfig, made)


def test_batchnorm_groups_keep_their_size_in_parts(monkeypatch):
  """Eight groups of four images, in one batch of 32 or in four parts of eight."""
  seen = []
  monkeypatch.setattr(
    BatchNorm, "_groups", lambda norm, batch: seen.append(batch // norm.groups) or norm.groups
  )
  for accumulate in (1, 4):
    config = tiny(8, accumulate)
    parts = assemble(config, DataSpec(128, 10, 32))
    step = make_train_step(
      parts.method, parts.augment, parts.optimizer.transform, accumulate=parts.accumulate
    )
    state = jax.eval_shape(
      make_init(parts.method, parts.augment, parts.optimizer.transform), jax.random.key(0), parts.batch
    )
    jax.eval_shape(step, state, parts.batch)
    assert set(seen) == {4} and parts.data.batch_size == 32
    seen.clear()


@pytest.mark.parametrize("groups, accumulate, cure", [(8, 16, 32), (6, 4, 8), (4, 4, 8)])
def test_parts_that_cut_batchnorm_groups_are_refused(groups, accumulate, cure):
  message = (
    f"batch_groups {groups} does not give each of config.accumulate {accumulate} parts of a batch two or"
    f" more whole BatchNorm groups; use batch_groups {cure} or another multiple of {accumulate}"
  )
  with pytest.raises(ValueError, match=message):
    assemble(tiny(groups, accumulate), DataSpec(128, 10, 32))
