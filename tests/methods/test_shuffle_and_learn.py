"""Shuffle and learn: triplets, their classes, the scores of all six, a dot that the method must follow."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import augment, losses, methods, models
from ssl_jax.abilities import PretextTask
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.models import heads, network
from tests.recipes import train_recipes

SIDE = 16
DATA = DataSpec(100, 0, 8, {"clip": ShapeDtype((5, SIDE, SIDE, 3), np.uint8)})
KEY = jax.random.key(0)


class Flat(nn.Module):
  """Pixels -> features, with one hidden layer."""

  @nn.compact
  def __call__(self, images, *, train):
    return nn.relu(nn.Dense(32)(images.reshape(len(images), -1)))


def make(**options):
  return methods.make("shuffle_and_learn", network(Flat()), DATA, **options)


def numbered(count: int) -> jax.Array:
  """Clips f32[count, 5, SIDE, SIDE, 3] whose frames have the grey levels 0, 0.1 to 0.4."""
  levels = jnp.arange(5, dtype=jnp.float32) / 10
  return jnp.broadcast_to(levels.reshape(1, 5, 1, 1, 1), (count, 5, SIDE, SIDE, 3))


@pytest.fixture(scope="module")
def drawn():
  """(Numbers i64[10000, 3] of the frames of triplets, targets i32[10000])."""
  task = make().abilities[PretextTask]
  clips = numbered(10_000)[:, :, :1, :1]
  examples = jax.jit(lambda key: task.make_task(key, clips)[:2])(KEY)
  return np.round(10 * np.asarray(examples[0])[..., 0, 0, 0]).astype(int), np.asarray(examples[1])[:, 0]


def test_the_ends_are_always_b_and_d_and_only_positives_have_the_true_middle(drawn):
  frames, targets = drawn
  np.testing.assert_array_equal(np.sort(frames[:, [0, 2]], 1), [[1, 3]] * len(frames))
  np.testing.assert_array_equal(frames[:, 1] == 2, targets == 1)
  assert set(frames[targets == 0, 1]) == {0, 4}


def test_three_quarters_are_not_in_order_and_halves_are_reversed(drawn):
  frames, targets = drawn
  assert (targets == 0).mean() == pytest.approx(0.75, abs=0.02)
  for label in (0, 1):
    assert (frames[targets == label, 0] == 1).mean() == pytest.approx(0.5, abs=0.03)
  assert (frames[targets == 0, 1] == 0).mean() == pytest.approx(0.5, abs=0.02)
  halves = make(negatives=0.5).abilities[PretextTask].make_task(KEY, numbered(1000)[:, :, :1, :1])
  assert float(halves.targets.mean()) == pytest.approx(0.5, abs=0.05)


def test_the_loss_of_a_network_that_has_learned_nothing():
  """ln 2 with zero weights, and the entropy of the classes, 0.5623, with the bias of their frequencies."""
  method, batch = make(), {"clip": numbered(20_000)[:, :, :1, :1]}
  init = method.init(KEY, batch)
  zero = jax.tree.map(jnp.zeros_like, init.params)
  loss = jax.jit(lambda params: method.loss(params, init.model_state, (), batch, KEY)[0])
  assert float(loss(zero)) == pytest.approx(math.log(2), abs=1e-6)
  dense = zero["head"]["Linear_0"]["Dense_0"]
  biased = {
    **zero,
    "head": {"Linear_0": {"Dense_0": {**dense, "bias": jnp.log(jnp.array([0.75, 0.25], jnp.float32))}}},
  }
  assert float(loss(biased)) == pytest.approx(0.5623, abs=0.01)


def test_reversed_triplets_have_the_same_class_but_may_have_other_logits():
  method = make()
  init = method.init(KEY, {"clip": numbered(2)})
  head = network(heads.Joined(2))
  features = jax.random.normal(KEY, (4, 3, 32))
  weights = Weights(init.params["head"], init.model_state["head"])
  logits = head.apply(weights, features)[0]
  assert logits.shape == (4, 1, 2)
  turned = head.apply(weights, features[:, ::-1])[0]
  assert not np.allclose(logits, turned)
  kernel = init.params["head"]["Linear_0"]["Dense_0"]["kernel"]
  assert kernel.shape == (96, 2)  # of the features of the first, the middle and the last frame, in this order
  np.testing.assert_allclose(
    logits[:, 0], jnp.concatenate(list(features.swapaxes(0, 1)), -1) @ kernel, atol=1e-5
  )


def dots(key: jax.Array, count: int) -> jax.Array:
  """Clips of a dot that moves along a row with the time, f32[count, 5, SIDE, SIDE, 3].

  The frames are at equal distances, forward or backward, so that no frame says by itself what it is.
  """
  first_key, step_key, side_key = jax.random.split(key, 3)
  step = jax.random.uniform(step_key, (count,), minval=1.5, maxval=2.5)
  start = jax.random.uniform(first_key, (count,)) * (SIDE - 1 - 4 * step)
  places = start[:, None] + step[:, None] * jnp.arange(5, dtype=jnp.float32)[None]
  places = jnp.where(jax.random.bernoulli(side_key, 0.5, (count, 1)), SIDE - 1 - places, places)
  x = jnp.arange(SIDE, dtype=jnp.float32)
  row = jnp.exp(-jnp.square(x[None, None] - places[..., None]))
  frames = jnp.where((x == SIDE // 2).reshape(1, 1, SIDE, 1, 1), row[:, :, None, :, None], 0)
  return jnp.broadcast_to(frames, (count, 5, SIDE, SIDE, 3))


def fit(method, steps: int):
  init = jax.jit(method.init)(KEY, {"clip": dots(KEY, 64)})
  adam = optax.adam(3e-3)

  @jax.jit
  def step(params, opt_state, key):
    grad = jax.grad(lambda p: method.loss(p, init.model_state, (), {"clip": dots(key, 128)}, key)[0])(params)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction mixes int and float
      updates, opt_state = adam.update(grad, opt_state)
    return optax.apply_updates(params, updates), opt_state

  params, opt_state = init.params, adam.init(init.params)
  for i in range(steps):
    params, opt_state = step(params, opt_state, jax.random.fold_in(KEY, i))
  evaluate = jax.jit(method.abilities[PretextTask].evaluate_task)
  scores = evaluate(params, init.model_state, dots(jax.random.key(9), 512))
  return {name: float(values.mean()) for name, values in scores.items()}


def test_a_moving_dot_is_solved():
  assert fit(make(hidden=64), 600)["balanced_accuracy"] > 0.95


def test_scores_are_those_of_all_six_triplets():
  method, batch = make(), {"clip": jax.random.uniform(KEY, (7, 5, SIDE, SIDE, 3))}
  init = method.init(KEY, batch)
  found = method.abilities[PretextTask].evaluate_task(init.params, init.model_state, batch["clip"])
  assert {name: leaf.shape for name, leaf in found.items()} == dict.fromkeys(
    ("balanced_accuracy", "accuracy", "loss"), (7,)
  )
  net = models.stack(network(Flat()), network(heads.Joined(2)))
  loss, plain, balanced = np.zeros(7), np.zeros(7), np.zeros(7)
  for first, middle, last, label, share, half in (
    (1, 2, 3, 1, 0.125, 0.25),
    (3, 2, 1, 1, 0.125, 0.25),
    (1, 0, 3, 0, 0.1875, 0.125),
    (3, 0, 1, 0, 0.1875, 0.125),
    (1, 4, 3, 0, 0.1875, 0.125),
    (3, 4, 1, 0, 0.1875, 0.125),
  ):
    logits = net.apply(Weights(*init[:2]), batch["clip"][:, jnp.array([first, middle, last])])[0][:, 0]
    loss += share * np.asarray(losses.cross_entropy(logits, jnp.full(7, label)))
    plain += share * np.asarray(logits.argmax(-1) == label)
    in_order = jax.nn.softmax(logits)[:, 1] > 0.25
    balanced += half * np.asarray(in_order == bool(label))
  np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(found["accuracy"], plain, atol=1e-6)
  np.testing.assert_allclose(found["balanced_accuracy"], balanced, atol=1e-6)


def test_one_crop_and_one_flip_for_all_frames():
  """A clip of equal frames stays one, and clips are flipped each for itself."""
  config = train_recipes()["pretrain/shuffle_and_learn.py:caffenet"]
  options = {**config.augment, "size": SIDE}
  apply = jax.jit(augment.make(options.pop("name"), **options))
  frame = np.random.default_rng(0).integers(0, 256, (1, 1, 20, 20, 3), np.uint8)
  found = np.asarray(apply(KEY, {"clip": np.tile(frame, (8, 5, 1, 1, 1))})["clip"])
  np.testing.assert_array_equal(found, np.repeat(found[:, :1], 5, 1))
  assert len({clip.tobytes() for clip in found}) == 8


def test_the_released_augmentation_changes_nothing():
  config = train_recipes()["pretrain/shuffle_and_learn.py:release"]
  options = {**config.augment, "size": SIDE}
  apply = jax.jit(augment.make(options.pop("name"), **options))
  clips = np.random.default_rng(0).integers(0, 256, (8, 5, SIDE, SIDE, 3), np.uint8)
  np.testing.assert_allclose(apply(KEY, {"clip": clips})["clip"], clips / 255, atol=1e-6)


def test_the_published_network_has_the_published_widths():
  config = check(TrainConfig, train_recipes()["pretrain/shuffle_and_learn.py:caffenet"].__dict__)
  options = {key: value for key, value in config.encoder.items() if key != "name"}
  data = DATA._replace(elements={"clip": ShapeDtype((5, 227, 227, 3), np.uint8)})
  method = methods.make("shuffle_and_learn", models.make("caffenet", **options), data)
  init = jax.eval_shape(method.init, KEY, {"clip": jax.ShapeDtypeStruct((1, 5, 227, 227, 3), np.float32)})
  assert init.params["head"]["Linear_0"]["Dense_0"]["kernel"].shape == (3 * 4096, 2)
  assert set(init.model_state["encoder"]["batch_stats"]) == {f"norm{i}" for i in range(3, 8)}
  assert not any(name.startswith("norm") for name in init.params["encoder"])  # without scale and bias
  assert (config.batch_size, config.accumulate, round(config.epochs * 1192)) == (128, 4, 100_000)


@pytest.mark.parametrize(
  "elements, options, message",
  [
    ({}, {}, "needs clips of 5 frames, but config.host.name delivers only ; use .*'stored_frames'"),
    ({"clip": ShapeDtype((4, 8, 8, 3), np.uint8)}, {}, "needs clips of 5 frames, .* only clips of 4 frames"),
    (DATA.elements, {"negatives": 1.0}, "config.method.negatives is 1.0; use a fraction between 0 and 1"),
    (DATA.elements, {"hidden": -1}, "config.method.hidden is -1; use a width, or 0"),
  ],
)
def test_what_does_not_fit_is_refused(elements, options, message):
  with pytest.raises(ValueError, match=message):
    methods.make("shuffle_and_learn", network(Flat()), DATA._replace(elements=elements), **options)


def test_without_a_hidden_layer_the_score_is_a_sum_over_the_frames():
  """Hence it cannot tell (0, 1, 2) and (2, 3, 4) from (0, 3, 2) and (2, 1, 4): the sums are equal."""
  head = network(heads.Joined(2))
  frames = jax.random.normal(KEY, (5, 8))
  triplet = lambda *places: frames[jnp.array(places)][None]
  weights = head.init(KEY, triplet(0, 1, 2))
  score = functools.partial(lambda x: np.asarray(head.apply(weights, x)[0][0, 0]))
  accepted = score(triplet(0, 1, 2)) + score(triplet(2, 3, 4))
  rejected = score(triplet(0, 3, 2)) + score(triplet(2, 1, 4))
  np.testing.assert_allclose(accepted, rejected, atol=1e-5)
