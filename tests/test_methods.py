"""Conformance tests that every method must pass. All methods are found automatically, and each is tested with
a recipe that uses it.
"""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, parallel
from ssl_jax.abilities import Adaptable, Classifier, Pyramid
from ssl_jax.augment.records import RECORDS
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec, TrainState, Weights
from ssl_jax.data import host
from ssl_jax.data.elements import Elements, ShapeDtype
from ssl_jax.planning.hlo import collectives
from ssl_jax.run.assembly import abstract_state, assemble, compile_train_step
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.tasks.backbone import encoder_only
from tests.recipes import shrunk, train_recipes

BATCH, SIZE, STEPS = 16, 16, 3
ELEMENTS = host.image(host.Frame(SIZE)).elements


@functools.cache
def config_of(name: str) -> TrainConfig:
  """The smallest form of a recipe that uses the method, CPU recipes first."""
  found = [config for config in train_recipes().values() if config.method["name"] == name]
  assert found, f"no file in configs uses the method {name!r}; add one"
  return check(TrainConfig, shrunk(min(found, key=lambda c: c.data.name != "sample"), batch=BATCH, size=SIZE))


@functools.lru_cache(maxsize=1)
def parts_of(name: str):
  return assemble(config_of(name), DataSpec(num_examples=100_000, num_classes=10, batch_size=BATCH))


@functools.lru_cache(maxsize=2)  # for one and for eight devices: the tests of a method run together
def compiled(name: str, devices: int):
  mesh = parallel.make_mesh(jax.devices()[:devices])
  abstract, init = abstract_state(parts_of(name), config_of(name), mesh)
  return compile_train_step(parts_of(name), abstract, mesh), abstract, init, mesh


def raw_batch(step: int = 0, elements: Elements = ELEMENTS) -> dict[str, np.ndarray]:
  """A batch of random arrays of these shapes, as the host could deliver them."""
  rng = np.random.default_rng(step)
  return {name: random_array(rng, name, spec) for name, spec in elements.items()}


def batch_of(name: str, step: int) -> dict[str, np.ndarray]:
  """A random batch for this method."""
  return raw_batch(step, parts_of(name).data.elements)


def random_array(rng: np.random.Generator, name: str, spec: ShapeDtype) -> np.ndarray:
  """Values that an element of this name may have."""
  shape = (BATCH, *spec.shape)
  if name.endswith("_valid"):
    return np.ones(shape, bool)
  if spec.dtype == np.uint8 and name != "mask":
    return rng.integers(0, 256, shape, np.uint8)
  if name == "image_size":
    return np.full(shape, SIZE, spec.dtype)
  if name == "boxes":
    corners = np.sort(rng.uniform(0, SIZE, (*shape[:-1], 2, 2)), axis=-2)
    return corners.reshape(shape).astype(np.float32)
  if name == "mask":  # one class an image, which can be learned
    return np.broadcast_to(rng.integers(0, 10, (BATCH, 1, 1)), shape).astype(spec.dtype)
  if np.dtype(spec.dtype).kind == "f":
    return rng.normal(size=shape).astype(spec.dtype)
  return rng.integers(0, 2 if spec.dtype == np.bool_ else 10, shape).astype(spec.dtype)  # classes


@functools.lru_cache(maxsize=2)
def trained(name: str, devices: int) -> tuple[TrainState, tuple[float, ...]]:
  step, _, init, mesh = compiled(name, devices)
  state, found = init(), []
  for i in range(STEPS):
    state, metrics = step(state, parallel.to_devices(batch_of(name, i), mesh))
    found.append(float(metrics["loss"].value()))
  return jax.device_get(state.replace(key=jax.random.key_data(state.key))), tuple(found)


@functools.lru_cache(maxsize=1)
def fitted(name: str):
  """Returns (losses, first state, parameters) of Adam on one augmented batch; only the parameters change."""
  method, augment = parts_of(name).method, parts_of(name).augment
  state = compiled(name, 1)[2]()
  # The state must not be on the mesh, because jit would trace again when the sharding changes.
  state = jax.device_put(jax.device_get(state.replace(key=0)), jax.devices()[0])
  batch = jax.jit(augment)(jax.random.key(1), batch_of(name, 0))
  adam, traces = optax.adam(3e-3), []

  @jax.jit
  def step(params, opt_state, rest):  # arrays of a closure would be constants, which XLA folds for seconds
    traces.append(1)
    (loss, _), gradient = jax.value_and_grad(method.loss, has_aux=True)(params, *rest, jax.random.key(2))
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction mixes int and float
      updates, opt_state = adam.update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss, gradient

  params, opt_state, found = state.params, adam.init(state.params), []
  for _ in range(20):
    rest = state.model_state, state.extra, batch
    params, opt_state, loss, gradient = step(params, opt_state, rest)
    found.append(float(loss))
  return found, gradient, len(traces), (method, state, batch, params)


@pytest.mark.parametrize("name", methods.known())
def test_another_number_of_views_is_refused(name):
  config = config_of(name)
  views = 3 - config.augment["views"]
  config = dataclasses.replace(config, augment={**config.augment, "views": views})
  if config.augment["name"] in RECORDS:
    with pytest.raises(
      ValueError, match="config.augment.views is 2, but .* moves whole records; use views=1"
    ):
      assemble(config, DataSpec(num_examples=100_000, num_classes=10, batch_size=BATCH))
    return
  parts = assemble(config, DataSpec(num_examples=100_000, num_classes=10, batch_size=BATCH))
  with pytest.raises(
    ValueError, match=f"method '{name}' takes .* config.augment.views is {views}; use {3 - views}"
  ):
    abstract_state(parts, config, parallel.make_mesh())


@pytest.mark.parametrize("name", methods.known())
def test_loss_falls_on_one_batch_with_one_trace(name):
  found, _, traces, _ = fitted(name)
  assert np.isfinite(found).all()
  assert found[-1] < 0.9 * found[0], found
  assert traces == 1


@pytest.mark.parametrize("name", methods.known())
def test_gradient_reaches_every_trained_leaf(name):
  _, gradient, _, _ = fitted(name)
  dead = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    if not np.any(np.asarray(leaf))
  ]
  assert not dead


@pytest.mark.parametrize("name", methods.known())
def test_no_gradient_reaches_the_methods_own_state(name):
  method, state, batch, params = fitted(name)[3]
  moving = jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else None, state.extra)
  if not jax.tree.leaves(moving):
    return

  def loss(floats):
    extra = jax.tree.map(
      lambda f, leaf: leaf if f is None else f, floats, state.extra, is_leaf=lambda x: x is None
    )
    return method.loss(params, state.model_state, extra, batch, jax.random.key(2))[0]

  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(moving)):
    assert not np.any(np.asarray(leaf)), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", methods.known())
def test_encode_and_pyramid_are_deterministic_and_leave_the_state_alone(name):
  method, state, _, _ = fitted(name)[3]
  images = jnp.asarray(raw_batch()["image"], jnp.float32) / 255
  first, again = (method.encode(state.params, state.model_state, images) for _ in range(2))
  assert first.shape[0] == BATCH and first.ndim == 2 and first.dtype == jnp.float32
  np.testing.assert_array_equal(first, again)
  part = method.encode(state.params, state.model_state, images[:3])
  np.testing.assert_allclose(first[:3], part, rtol=1e-4, atol=1e-5)  # one image does not see the others
  for name, maps in method.abilities[Pyramid].maps(state.params, state.model_state, images).items():
    assert maps.ndim == 4 and maps.shape[0] == BATCH, name


@pytest.mark.parametrize("name", methods.known())
def test_eight_devices_share_the_work(name):
  """A computation that is not sharded is repeated by each device; only the operation count shows this."""
  one, eight = (compiled(name, devices)[0].cost_analysis()["flops"] for devices in (1, 8))
  assert (
    8 * eight < 2 * one
  )  # every device runs the optimiser, a large part of the cost of such tiny networks


@pytest.mark.parametrize("name", methods.known())
def test_devices_exchange_gradients_and_features_but_no_images(name):
  """Apart from the sums of gradients and statistics, a device sends less than half of the bytes of its views.
  MoCo also exchanges the views of its keys.
  """
  step, abstract, _, _ = compiled(name, 8)
  found = collectives(step.as_text())
  views = config_of(name).augment["views"] * SIZE * SIZE * 3 * 4 * BATCH // 8
  state = sum(leaf.size * 4 for leaf in jax.tree.leaves((abstract.params, abstract.model_state)))
  assert found["all-reduce"]["bytes"] < 1.3 * state + views / 2
  others = sum(row["bytes"] for kind, row in found.items() if kind not in ("all-reduce", "all-gather"))
  assert others < (1.1 * views if name == "moco" else views / 2)


@pytest.mark.parametrize("name", methods.known())
def test_eight_devices_equal_one(name):
  (one, losses_one), (eight, losses_eight) = trained(name, 1), trained(name, 8)
  np.testing.assert_allclose(losses_one, losses_eight, rtol=2e-4)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(eight), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", methods.known())
def test_saved_restored_and_continued_is_bit_equal(name, tmp_path):
  step, abstract, init, mesh = compiled(name, 1)
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    state, _ = step(init(), parallel.to_devices(batch_of(name, 0), mesh))
    checkpoints.save(state, {"config": {}}, step=1)
    for i in range(1, STEPS):  # donates the state while the checkpoint is still being written
      state, _ = step(state, parallel.to_devices(batch_of(name, i), mesh))
    checkpoints.wait()
    again = checkpoints.restore(1, abstract)
    weights = checkpoints.restore_weights(1, Weights(abstract.params, abstract.model_state))
  assert int(again.step) == 1
  jax.tree.map(np.testing.assert_array_equal, weights, Weights(again.params, again.model_state))
  for i in range(1, STEPS):
    again, _ = step(again, parallel.to_devices(batch_of(name, i), mesh))
  assert jax.tree.structure(again) == jax.tree.structure(state)
  plain = lambda s: jax.device_get(s.replace(key=jax.random.key_data(s.key)))
  jax.tree.map(np.testing.assert_array_equal, plain(again), plain(state))


@pytest.mark.parametrize("name", methods.known())
def test_abilities_are_those_that_the_file_declares(name):
  """The method of each recipe has only declared abilities, and every declared one occurs in some recipe."""
  declared = set(importlib.import_module(f"ssl_jax.methods.{name}").ABILITIES)
  found = set()
  for config in train_recipes().values():
    if config.method["name"] == name:
      small = check(TrainConfig, shrunk(config, batch=BATCH, size=SIZE))
      method = assemble(small, DataSpec(num_examples=100_000, num_classes=10, batch_size=BATCH)).method
      for kind, what in method.abilities.items():
        assert isinstance(what, kind)
        assert methods.ability(method, kind, owner=name, user="a test") is what
      found |= set(method.abilities)
  assert found == declared


def test_a_missing_ability_names_the_methods_that_have_it():
  method = encoder_only(None)
  with pytest.raises(
    methods.MissingAbility,
    match="a test needs a network with the ability Adaptable, which 'pixels' does not have; "
    "methods with it: joint, .*policy; do something else",
  ):
    methods.ability(method, Adaptable, owner="pixels", user="a test", cure="do something else")
  assert methods.with_ability(Classifier) == ["joint", "mae_probe", "supervised"]
