"""Learning from tracking: the ranking loss by hand, the choice of negatives, the phases, what is learned."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import augment, losses, methods, models
from ssl_jax.abilities import PretextTask
from ssl_jax.core import Carry, DataSpec
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.methods.tracking import TrackingState, choose_negatives, other_tracks, rank
from ssl_jax.models import network
from tests.recipes import train_recipes

SIDE = 8
DATA = DataSpec(
  80,
  0,
  8,
  {
    "clip": ShapeDtype((2, SIDE, SIDE, 3), np.uint8),
    "clip_number": ShapeDtype((), np.int32),
    "numbers": ShapeDtype((2,), np.int32),
  },
)
KEY = jax.random.key(0)


class Flat(nn.Module):
  """Pixels -> features, with one hidden layer."""

  @nn.compact
  def __call__(self, images, *, train):
    return nn.relu(nn.Dense(32)(images.reshape(len(images), -1)))


def make(data: DataSpec = DATA, **options):
  return methods.make("tracking", network(Flat()), data, **options)


def all_others(count: int) -> jax.Array:
  return other_tracks({"clip": jnp.zeros((count, 2))}, "negatives")


def loss_of(pairs, *, margin=0.5, hardest=0, others=None, key=KEY):
  pairs = jnp.asarray(pairs, jnp.float32)
  others = all_others(len(pairs)) if others is None else others
  values, metrics = rank(key, pairs, others, margin=margin, negatives=4, hardest=hardest)
  return float(values.mean()), {name: float(mean.value()) for name, mean in metrics.items()}


@pytest.mark.parametrize("hardest", [0, 2, 4])
def test_two_pairs_by_hand(hardest):
  """Each track has two candidates that violate by 0.3: 2 (2 (0.3 + 0.3)) / (4 x 2 x 2) = 0.15."""
  pairs = [[[1, 0], [1, 0]], [[0.8, 0.6], [0.8, 0.6]]]
  value, metrics = loss_of(pairs, hardest=hardest)
  assert value == pytest.approx(0.15, abs=1e-6)
  assert metrics == {"contrast_accuracy": 1, "violations": 1}


@pytest.mark.parametrize("hardest", [0, 2, 4])
@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_collapsed_features_lose_the_margin(hardest, margin):
  value, metrics = loss_of(np.ones((6, 2, 4)) / 2, margin=margin, hardest=hardest)
  assert value == pytest.approx(margin, abs=1e-6)
  assert metrics["contrast_accuracy"] == 0


@pytest.mark.parametrize("margin", [0.5, 1.0])  # with 1 the hinge is exactly zero, which is no violation
def test_perfect_features_lose_nothing(margin):
  pairs = jnp.repeat(jnp.eye(6)[:, None], 2, 1)
  value, metrics = loss_of(pairs, margin=margin)
  assert value == 0 and metrics == {"contrast_accuracy": 1, "violations": 0}
  gradient = jax.grad(lambda x: rank(KEY, x, all_others(6), margin=margin, negatives=4, hardest=0)[0].mean())(
    pairs
  )
  assert not np.asarray(gradient).any()


def random_pairs(seed: int, count: int = 12) -> np.ndarray:
  """f32[count, 2, 5], unit norm."""
  pairs = np.random.default_rng(seed).normal(size=(count, 2, 5)).astype(np.float32)
  return pairs / np.linalg.norm(pairs, axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_hardest_are_those_of_a_sort_and_the_loss_is_the_released_sum(seed):
  pairs = random_pairs(seed)
  patches, margin, total = pairs.reshape(-1, 5), 0.5, 0.0
  for track, (first, last) in enumerate(pairs):
    own = first @ last
    found = [j for j in range(len(patches)) if j // 2 != track and first @ patches[j] - own + margin > 0]
    for j in sorted(found, key=lambda j: -(first @ patches[j]))[:4]:
      total += max(0, first @ patches[j] - own + margin) + max(0, last @ patches[j] - own + margin)
  value, _ = loss_of(pairs, hardest=4)
  assert value == pytest.approx(total / (4 * len(pairs) * 2), rel=1e-5)


@pytest.mark.parametrize("hardest", [0, 2, 4])
def test_the_choice_has_the_hard_ones_no_sibling_and_changes_with_the_key(hardest):
  cosines = jnp.asarray(np.random.default_rng(0).normal(size=(10, 20)), jnp.float32)
  others = all_others(10)
  candidates = others & (cosines > -0.5)
  top = np.argsort(np.where(candidates, -cosines, np.inf), 1)[:, :4]
  counts = np.zeros(cosines.shape)
  choose = jax.jit(functools.partial(choose_negatives, count=4))
  for i in range(200):
    chosen = np.asarray(choose(jax.random.key(i), cosines, candidates, hardest=hardest))
    assert (chosen.sum(1) == 4).all() and not (chosen & ~np.asarray(candidates)).any()
    assert (np.take_along_axis(chosen, top, 1).sum(1) >= hardest).all()
    counts += chosen
  assert not counts[np.arange(10), 2 * np.arange(10)].any()  # siblings and the patch itself
  assert not counts[np.arange(10), 2 * np.arange(10) + 1].any()
  shares = np.take_along_axis(counts, top, 1) / 200
  number = np.asarray(candidates).sum(1, keepdims=True)
  expected = hardest / 4 + (1 - hardest / 4) * (4 - hardest) / np.maximum(number - hardest, 1)
  np.testing.assert_allclose(shares, np.broadcast_to(expected, shares.shape), atol=0.13)


def test_few_candidates_are_all_taken():
  cosines = jnp.zeros((4, 8))
  candidates = jnp.arange(8)[None] < jnp.arange(4)[:, None]
  for hardest in (0, 2, 4):
    np.testing.assert_array_equal(choose_negatives(KEY, cosines, candidates, 4, hardest), candidates)
    np.testing.assert_array_equal(choose_negatives(KEY, cosines, candidates, 20, hardest), candidates)


def test_tracks_of_the_same_clip_may_be_left_out_or_must_be_at_other_times():
  clips, frames = jnp.array([5, 5, 7, 5]), jnp.array([[0, 9], [9, 12], [0, 9], [10, 19]])
  batch = {"clip": jnp.ones((4, 2, SIDE, SIDE, 3)), "clip_number": clips, "numbers": frames}
  expected = {
    "negatives": [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]],
    "later": [[0, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0]],
    "none": [[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]],
  }
  for same_clip, tracks in expected.items():
    np.testing.assert_array_equal(other_tracks(batch, same_clip), np.repeat(tracks, 2, 1).astype(bool))
    method = make(same_clip=same_clip, dim=4)
    init = method.init(KEY, batch)
    value = method.loss(init.params, init.model_state, init.extra, batch, KEY)[0]
    chosen = np.minimum(2 * np.sum(tracks, 1), 4)  # of equal features, each of which loses the margin
    assert float(value) == pytest.approx(0.5 * (chosen / 4).mean(), abs=1e-5)


def test_zero_features_give_finite_gradients():
  """ReLU before the normalisation can make all features zero."""
  method, batch = make(), {"clip": jnp.zeros((4, 2, SIDE, SIDE, 3))}
  init = method.init(KEY, batch)
  loss = lambda params: method.loss(params, init.model_state, init.extra, batch, KEY)[0]
  value, gradient = jax.value_and_grad(loss)(init.params)
  assert float(value) == pytest.approx(0.5)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_negatives_are_random_for_the_first_epochs_and_then_hard():
  """80 tracks in batches of 8 are ten steps an epoch."""
  method = make(random_epochs=0.5, hard=1.0)
  batch = {"clip": jax.random.uniform(KEY, (8, 2, SIDE, SIDE, 3))}
  init = method.init(KEY, batch)

  def values(steps: int) -> set[float]:
    extra = TrackingState(jnp.asarray(steps, jnp.int32))
    loss = jax.jit(lambda key: method.loss(init.params, init.model_state, extra, batch, key)[0])
    return {round(float(loss(jax.random.key(i))), 6) for i in range(6)}

  assert len(values(0)) > 1 and len(values(4)) > 1
  assert len(values(5)) == 1 and min(values(5)) > max(values(4)) - 1e-6
  extra = init.extra
  for _ in range(3):
    extra = method.after_update(extra, init.params, Carry())
  assert int(extra.steps) == 3


def test_the_task_is_the_two_patches_and_one_of_another_track():
  clips = jnp.arange(3.0)[:, None, None, None, None] + jnp.array([0.0, 0.5])[None, :, None, None, None]
  method = make()
  examples = method.abilities[PretextTask].make_task(KEY, clips)
  np.testing.assert_allclose(examples.inputs[..., 0, 0, 0], [[0, 0.5, 2.5], [1, 1.5, 0.5], [2, 2.5, 1.5]])
  batch = jax.random.uniform(KEY, (5, 2, SIDE, SIDE, 3))
  init = method.init(KEY, {"clip": batch})
  found = method.abilities[PretextTask].evaluate_task(init.params, init.model_state, batch)["similarity"]
  encoded = [losses.unit(method.encode(init.params, init.model_state, batch[:, i])) for i in range(2)]
  np.testing.assert_allclose(found, (encoded[0] * encoded[1]).sum(1), rtol=1e-5)


def marked(key: jax.Array, count: int) -> jax.Array:
  """Tracks f32[count, 2, SIDE, SIDE, 3] of patterns under noise; the patches of a track share the pattern."""
  pattern_key, noise_key = jax.random.split(key)
  pattern = jax.random.normal(pattern_key, (count, 1, 2, 2, 3)).repeat(4, 2).repeat(4, 3)
  noise = 2.0 * jax.random.normal(noise_key, (count, 2, SIDE, SIDE, 3))
  return pattern + noise


def test_patches_of_new_tracks_are_matched_after_training():
  method = make(dim=16, random_epochs=5.0)
  state = jax.jit(method.init)(KEY, {"clip": marked(KEY, 64)})
  adam = optax.adam(3e-3)

  @jax.jit
  def step(params, opt_state, extra, key):
    loss = lambda p: method.loss(p, state.model_state, extra, {"clip": marked(key, 64)}, key)
    gradient, aux = jax.grad(loss, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction mixes int and float
      updates, opt_state = adam.update(gradient, opt_state)
    params = optax.apply_updates(params, updates)
    return params, opt_state, method.after_update(extra, params, aux.carry), aux.metrics

  params, opt_state, extra, found = state.params, adam.init(state.params), state.extra, []
  for i in range(250):
    params, opt_state, extra, metrics = step(params, opt_state, extra, jax.random.fold_in(KEY, i))
    found.append(float(metrics["contrast_accuracy"].value()))
  assert np.mean(found[:5]) < 0.5 and np.mean(found[-20:]) > np.mean(found[:5]) + 0.3


def test_the_published_augmentation_mirrors_each_patch_by_itself():
  config = train_recipes()["pretrain/tracking.py:caffenet"]
  options = {**config.augment, "size": SIDE}
  apply = jax.jit(augment.make(options.pop("name"), **options))
  clips = np.random.default_rng(0).integers(0, 256, (32, 2, SIDE, SIDE, 3), np.uint8)
  found = np.asarray(apply(KEY, {"clip": clips})["clip"])
  mirrored = np.abs(found - clips[:, :, :, ::-1] / 255).max((2, 3, 4)) < 1e-5
  kept = np.abs(found - clips / 255).max((2, 3, 4)) < 1e-5
  assert (mirrored ^ kept).all() and 0.2 < (mirrored[:, 0] != mirrored[:, 1]).mean() < 0.8


def test_the_published_network_has_the_published_widths():
  config = train_recipes()["pretrain/tracking.py:caffenet"]
  options = {key: value for key, value in config.encoder.items() if key != "name"}
  data = DATA._replace(elements={"clip": ShapeDtype((2, 227, 227, 3), np.uint8)})
  method = methods.make("tracking", models.make("caffenet", **options), data)
  init = jax.eval_shape(method.init, KEY, {"clip": jax.ShapeDtypeStruct((1, 2, 227, 227, 3), np.float32)})
  assert init.params["encoder"]["fc6"]["kernel"].shape == (9216, 4096)
  assert init.params["encoder"]["fc7"]["kernel"].shape == (4096, 1024) and not init.params["head"]


@pytest.mark.parametrize(
  "options, elements, message",
  [
    ({}, {"image": ShapeDtype((8, 8, 3), np.uint8)}, "needs clips of 2 frames, .* delivers only image; use"),
    ({}, {"clip": ShapeDtype((5, 8, 8, 3), np.uint8)}, "delivers only clips of 5 frames; use .*count=2"),
    (
      {"same_clip": "later"},
      {"clip": ShapeDtype((2, 8, 8, 3), np.uint8)},
      "config.method.same_clip is 'later', but .* does not deliver 'clip_number' and 'numbers'",
    ),
    ({"negatives": 0}, DATA.elements, "config.method.negatives is 0; use 1 or more"),
    ({"dim": -1}, DATA.elements, "config.method.dim is -1; use 0 or more"),
    ({"hard": 1.5}, DATA.elements, "config.method.hard is 1.5; use a fraction from 0 to 1"),
  ],
)
def test_what_does_not_fit_is_refused(options, elements, message):
  with pytest.raises(ValueError, match=message):
    make(DATA._replace(elements=elements), **options)
