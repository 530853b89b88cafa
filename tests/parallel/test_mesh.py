"""Shardings of states and batches, and train steps that do not depend on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.run.assembly import abstract_state, assemble, compile_train_step
from ssl_jax.run.provenance import provenance


def test_fsdp_cuts_large_leaves_along_their_longest_divisible_axis():
  mesh = parallel.make_mesh()
  state = {
    "large": jax.ShapeDtypeStruct((300, 1024), jnp.float32),
    "odd": jax.ShapeDtypeStruct((301, 1023), jnp.float32),
    "tall": jax.ShapeDtypeStruct((4096, 64), jnp.float32),
    "small": jax.ShapeDtypeStruct((64,), jnp.float32),
  }
  specs = {name: s.spec for name, s in parallel.state_sharding(state, mesh, "fsdp").items()}
  assert specs == {
    "large": PartitionSpec(None, "data"),
    "odd": PartitionSpec(),
    "tall": PartitionSpec("data"),
    "small": PartitionSpec(),
  }
  assert {s.spec for s in parallel.state_sharding(state, mesh).values()} == {PartitionSpec()}


@pytest.mark.parametrize("kind", ["replicate", "fsdp"])
def test_a_step_is_the_same_wherever_its_state_lies(kind):
  def step(state, batch):
    gradient = jax.grad(lambda w: jnp.tanh(batch["x"] @ w).mean())(state["w"])
    return {"w": state["w"] - gradient}, {"norm": jnp.sum(gradient * gradient)}

  mesh = parallel.make_mesh()
  state = {"w": np.random.default_rng(0).normal(size=(512, 256)).astype(np.float32)}
  batch = {"x": np.random.default_rng(1).normal(size=(16, 512)).astype(np.float32)}
  expected, _ = jax.jit(step)(state, batch)
  shardings = parallel.state_sharding(state, mesh, kind)
  found, _ = parallel.compile_step(step, mesh, shardings)(
    jax.device_put(state, shardings), parallel.to_devices(batch, mesh)
  )
  assert found["w"].sharding.spec == (PartitionSpec("data") if kind == "fsdp" else PartitionSpec())
  np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-5, atol=1e-6)


def two_slices() -> Mesh:
  """Eight devices as two slices of four, as `make_mesh` arranges those of TPUs."""
  grid = np.array(jax.devices()).reshape(2, 4)
  return Mesh(grid, ("slice", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def test_slices_hold_the_same_parts_of_a_state_and_divide_a_batch():
  mesh = two_slices()
  state = {
    "w": jax.ShapeDtypeStruct((516, 256), jnp.float32),
    "odd": jax.ShapeDtypeStruct((514, 258), jnp.float32),
  }
  found = parallel.state_sharding(state, mesh, "fsdp")
  assert found["w"].spec == PartitionSpec("data") and found["w"].shard_shape((516, 256)) == (129, 256)
  assert found["odd"].is_fully_replicated
  assert (
    provenance(mesh)["device"] == "8 x cpu in 2 slices"
    and provenance(parallel.make_mesh())["device"] == "8 x cpu"
  )
  rows = parallel.to_devices({"x": np.arange(16)}, mesh)["x"]
  assert rows.sharding.shard_shape((16,)) == (2,)
  assert [int(part.data[0]) for part in rows.addressable_shards] == list(range(0, 16, 2))
  parallel.check_batch(16, mesh)
  with pytest.raises(ValueError, match="not divisible by 8 devices"):
    parallel.check_batch(12, mesh)


@pytest.mark.parametrize("kind", ["replicate", "fsdp"])
def test_two_slices_equal_one(kind):
  def step(state, batch):
    def loss(w):
      hidden = parallel.constrain_rows(jnp.tanh(batch["x"] @ w)[::-1])
      return (hidden - hidden.mean(axis=0, keepdims=True)).std()

    gradient = jax.grad(loss)(state["w"])
    return {"w": state["w"] - gradient}, {"norm": jnp.sum(gradient * gradient)}

  state = {"w": np.random.default_rng(0).normal(size=(512, 256)).astype(np.float32)}
  batch = {"x": np.random.default_rng(1).normal(size=(16, 512)).astype(np.float32)}
  found = []
  for mesh in (parallel.make_mesh(jax.devices()[:1]), two_slices()):
    shardings = parallel.state_sharding(state, mesh, kind)
    compiled = parallel.compile_step(step, mesh, shardings)
    after, _ = compiled(jax.device_put(state, shardings), parallel.to_devices(batch, mesh))
    found.append(np.asarray(after["w"]))
  np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_what_runs_on_each_device_covers_all_slices():
  mesh, rows = two_slices(), np.arange(16.0, dtype=np.float32)
  run = jax.jit(parallel.per_device(lambda x, one: x + one + len(x), mesh, (True, False)))
  np.testing.assert_array_equal(parallel.fetch(run(parallel.spread(rows, mesh), np.float32(1))), rows + 3)
  assert parallel.spread(rows, mesh).sharding.shard_shape((16,)) == (2,)


def test_batches_are_handed_on_in_order_and_completely():
  mesh = parallel.make_mesh()
  batches = ({"x": np.full((8, 2), i)} for i in range(5))
  found = [int(batch["x"][0, 0]) for batch in parallel.prefetch(batches, mesh)]
  assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
  "batch, message", [(12, "use a multiple of 8, such as 8"), (3, "such as 8"), (20, "such as 16")]
)
def test_batches_that_do_not_divide_are_refused(batch, message):
  with pytest.raises(ValueError, match=message):
    parallel.check_batch(batch, parallel.make_mesh())


def test_cut_weights_parts_of_a_batch_and_remat_together_change_nothing():
  """Compares two steps of a real transformer with all three and with none of them, on eight devices."""

  def after(**changes):
    encoder = dict(
      name="vit", width=128, depth=2, heads=2, patch=8, layers="scan", remat=changes.pop("remat", "none")
    )
    config = check(
      TrainConfig,
      recipe(
        method=dict(name="supervised"),
        encoder=encoder,
        augment=dict(name="none", views=1, size=16),
        epochs=1.0,
        batch_size=32,
        optimizer=dict(name="sgd", learning_rate=0.1),
        data=dict(name="synthetic", split="train[:64]", size=16),
        **changes,
      ),
    )
    mesh = parallel.make_mesh()
    parts = assemble(config, DataSpec(64, 10, 32))
    abstract, init = abstract_state(parts, config, mesh)
    step, state = compile_train_step(parts, abstract, mesh), init()
    draw = np.random.default_rng(0)
    for _ in range(2):
      batch = {
        "image": draw.integers(0, 256, (32, 16, 16, 3)).astype(np.uint8),
        "label": draw.integers(0, 10, 32).astype(np.int32),
      }
      state, metrics = step(state, parallel.to_devices(batch, mesh))
    cut = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    return jax.device_get(state.params), float(metrics["loss"].value()), cut

  (params, loss, cut), (expected, right, whole) = after(sharding="fsdp", accumulate=2, remat="dots"), after()
  assert cut >= 6 and whole == 0  # the layers' large matrices, and the momentum of each
  np.testing.assert_allclose(loss, right, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params, expected)
