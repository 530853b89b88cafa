"""The policy: what it sees, its losses, which parameters its task moves, the task on crops, bad options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, methods, models
from ssl_jax.abilities import Actor, Adaptable
from ssl_jax.core import DataSpec
from ssl_jax.data import host
from ssl_jax.ttt.inner_loop import CLEAN, repeat, select_params

KEY = jax.random.key(0)
SIDE, SIZE, ACTIONS = 20, 16, 2
DATA = DataSpec(100, 0, 8, host.make("transition", host.Frame(SIDE), actions=ACTIONS).elements)
CROP = augment.make("transition_crop", views=1, size=SIZE)
RNG = np.random.default_rng(0)
BATCH = {
  "clip": RNG.integers(0, 256, (8, 4, SIDE, SIDE, 3)).astype(np.uint8),
  "action": RNG.uniform(-1, 1, (8, ACTIONS)).astype(np.float32),
  "expert_action": RNG.uniform(-1, 1, (8, ACTIONS)).astype(np.float32),
}


def make(**options):
  encoder = models.make("pixel_encoder", depth=4, channels=8, features=10)
  return methods.make("policy", encoder, DATA, **{**dict(branch="conv2", hidden=16, size=SIZE), **options})


@functools.cache
def begun(**options):
  """(method, parameters that are not those of the beginning, model state, augmented batch)."""
  method = make(**options)
  views = jax.jit(CROP)(KEY, BATCH)
  params, state, _ = method.init(KEY, views)
  move = lambda leaf: leaf + 0.05 * jax.random.normal(KEY, leaf.shape)
  return method, jax.tree.map(move, params), state, views


def test_it_acts_on_the_centre_of_the_last_three_frames():
  method, params, state, _ = begun()
  act = jax.jit(method.abilities[Actor].act)
  clip = jnp.asarray(BATCH["clip"], jnp.float32) / 255
  found = act(params, state, clip)
  assert found.shape == (8, ACTIONS) and np.abs(found).max() < 1
  edge = jnp.ones((SIDE, SIDE, 3)).at[2:-2, 2:-2].set(0)[None, None]
  np.testing.assert_array_equal(act(params, state, clip.at[:, 0].set(0)), found)
  np.testing.assert_array_equal(act(params, state, jnp.where(edge > 0, 0.0, clip)), found)
  assert np.abs(act(params, state, clip.at[:, 3, 10, 10].set(0)) - found).max() > 0
  actor = method.abilities[Actor]
  assert (actor.frames, actor.size, actor.actions, actor.learns_actions) == (3, SIDE, ACTIONS, True)


def test_the_loss_is_the_error_to_the_expert_plus_the_weighted_task():
  method, params, state, views = begun()
  loss, aux = jax.jit(method.loss)(params, state, (), views, KEY)
  action, task = (float(aux.metrics[name].value()) for name in ("action_error", "task_error"))
  np.testing.assert_allclose(loss, action + task, rtol=1e-6)
  halved, _ = jax.jit(make(weight=0.5).loss)(params, state, (), views, KEY)
  np.testing.assert_allclose(halved, action + 0.5 * task, rtol=1e-6)
  # Where every crop is the whole frame, the error is that of the policy as it acts.
  wide = make(size=SIDE)
  whole = jax.jit(augment.make("transition_crop", views=1, size=SIDE))(KEY, BATCH)
  params, state, _ = wide.init(KEY, whole)
  seen = jnp.concatenate(
    [jnp.zeros((8, 1, SIDE, SIDE, 3)), jnp.asarray(BATCH["clip"][:, :3], jnp.float32) / 255], 1
  )
  acted = wide.abilities[Actor].act(params, state, seen)
  _, aux = jax.jit(wide.loss)(params, state, (), whole, KEY)
  wanted = ((acted - BATCH["expert_action"]) ** 2).mean()
  np.testing.assert_allclose(aux.metrics["action_error"].value(), wanted, rtol=1e-5)


@pytest.mark.parametrize("task", ["inverse_dynamics", "rotation"])
def test_without_weight_the_task_learns_nothing_and_the_policy_does(task):
  method, params, state, views = begun(task=task, weight=0.0)
  gradient = jax.jit(jax.grad(lambda p: method.loss(p, state, (), views, KEY)[0]))(params)
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient["task"]))
  assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient["policy"]))


def copies(count: int = 32):
  """(Augmented copies of the first transition as the inner loop gives them, the crops)."""
  sample = {name: jnp.asarray(leaf[0]) for name, leaf in BATCH.items() if name != "expert_action"}
  rows = repeat(sample, 0, count)
  views = jax.jit(CROP)(KEY, rows)
  return views | {
    CLEAN + name: leaf.astype(jnp.float32) / (255 if name == "clip" else 1) for name, leaf in rows.items()
  }


def test_the_task_on_32_crops_is_that_of_training_on_32_transitions():
  method, params, state, _ = begun()
  views, adaptable = copies(), method.abilities[Adaptable]
  task = adaptable.make_task(KEY, views)

  def trained(params):
    batch = {**views, "expert_action": jnp.zeros((32, ACTIONS))}
    return method.loss(params, state, (), batch, KEY)[1].metrics["task_error"].value()

  def adapted(params):
    return adaptable.loss(params, state, task).mean()

  one, two = (jax.jit(jax.value_and_grad(f))(params) for f in (trained, adapted))
  assert adaptable.loss(params, state, task).shape == (32,)
  np.testing.assert_allclose(one[0], two[0], rtol=1e-5)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one[1]), jax.tree.leaves(two[1]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("task", ["inverse_dynamics", "rotation"])
def test_only_the_shared_and_the_tasks_part_move(task):
  method, params, state, _ = begun(task=task)
  adaptable = method.abilities[Adaptable]
  posed = adaptable.make_task(KEY, copies())
  gradient = jax.jit(jax.grad(lambda p: adaptable.loss(p, state, posed).mean()))(params)
  moved = {
    part: any(np.asarray(leaf).any() for leaf in jax.tree.leaves(tree)) for part, tree in gradient.items()
  }
  assert moved == {"encoder": True, "policy": False, "task": True}
  selected = select_params(params, adaptable.trainable)
  assert {part for part, tree in selected.items() if jax.tree.leaves(tree)} == {"encoder", "task"}


def test_rotation_turns_the_later_observation_by_known_quarters():
  method, params, state, _ = begun(task="rotation")
  views, adaptable = copies(8), method.abilities[Adaptable]
  task = adaptable.make_task(KEY, views)
  for turned, quarters, crop in zip(task["turned"], task["targets"], views["next_observation"]):
    np.testing.assert_allclose(turned, np.rot90(crop, int(quarters)))
  assert len(set(np.asarray(task["targets"]).tolist())) > 1
  assert adaptable.loss(params, state, task).shape == (8,)
  assert not method.abilities[Actor].learns_actions


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(branch="conv9"), "config.method.branch is 'conv9', but .* one of conv1, conv2, conv3, conv4"),
    (dict(weight=-1.0), "config.method.weight is -1.0; use a positive one, or 0"),
    (dict(size=24), "config.method.size is 24, but the frames have 20 x 20"),
    (dict(hidden=0), "config.method.hidden is 0"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_other_data_and_other_crops_are_refused():
  encoder = models.make("pixel_encoder", depth=4)
  images = DataSpec(100, 10, 8, host.image(host.Frame(SIDE)).elements)
  with pytest.raises(
    ValueError, match="needs transitions, .* delivers only image, label; use .*'transition'"
  ):
    methods.make("policy", encoder, images)
  views = jax.eval_shape(augment.make("transition_crop", views=1, size=12), KEY, BATCH)
  with pytest.raises(ValueError, match="config.method.size is 16, but the augmentation makes crops of 12"):
    make().init(KEY, views)
