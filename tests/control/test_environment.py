"""Environments: seeds, held actions, worlds that differ in pixels and not in state, the expert, options."""

import types

import numpy as np
import pytest

from ssl_jax.control import environment as module
from ssl_jax.control import experts
from ssl_jax.control.environment import Environment, Setup
from ssl_jax.control.worlds import WORLDS

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (12, 1)).astype(np.float32)


def rolled(environment: Environment, seed: int, world: str) -> list:
  return [environment.reset(seed, world), *[environment.step(action) for action in ACTIONS]]


def states(moments) -> np.ndarray:
  return np.array([moment.state for moment in moments])


def frames(moments) -> np.ndarray:
  return np.array([moment.frame for moment in moments])


def test_worlds_differ_in_pixels_and_not_in_state(cartpole):
  plain = rolled(cartpole, 3, "train")
  for world in WORLDS[1:]:
    other = rolled(cartpole, 3, world)
    np.testing.assert_allclose(states(other), states(plain), rtol=0, atol=1e-12)
    np.testing.assert_allclose([m.reward for m in other], [m.reward for m in plain], rtol=0, atol=1e-12)
    np.testing.assert_allclose([m.expert for m in other], [m.expert for m in plain], rtol=0, atol=1e-6)
    assert (frames(other) != frames(plain)).mean() > 0.1, world


def test_a_seed_determines_everything_and_another_one_changes_start_and_looks(cartpole):
  for world in WORLDS:
    first, again = rolled(cartpole, 1, world), rolled(cartpole, 1, world)
    np.testing.assert_array_equal(states(first), states(again))
    np.testing.assert_array_equal(frames(first), frames(again))
  one, two = rolled(cartpole, 1, "colours_hard"), rolled(cartpole, 2, "colours_hard")
  assert not np.allclose(one[0].state, two[0].state)
  assert np.abs(one[0].frame[0].astype(int) - two[0].frame[0]).mean() > 10  # the sky


def test_the_training_world_comes_back_after_others(cartpole):
  plain = rolled(cartpole, 5, "train")
  for world in WORLDS[1:]:
    cartpole.reset(5, world)
    np.testing.assert_array_equal(cartpole.reset(5, "train").frame, plain[0].frame, err_msg=world)


def test_easy_colours_are_nearer_than_hard_ones(cartpole):
  distance = lambda world: np.mean(
    [
      np.abs(cartpole.reset(seed, world).frame.astype(int) - cartpole.reset(seed, "train").frame).mean()
      for seed in range(6)
    ]
  )
  assert 2 < distance("colours_easy") < 0.6 * distance("colours_hard")


def test_a_video_runs_behind_the_body_and_back(cartpole):
  moments = rolled(cartpole, 0, "video")
  sky = frames(moments)[:, 2]  # a row of stripes of 60 pixels reduced to 48
  magenta = (sky[..., 0] > 150) & (sky[..., 1] < 30) & (sky[..., 2] > 150)
  assert magenta.any(1).all()
  np.testing.assert_array_equal(sky[0], sky[6])  # frames 0 1 2 3 2 1 0
  np.testing.assert_array_equal(sky[1], sky[5])
  assert (sky[0] != sky[1]).any()
  body = (frames(moments)[0][:, :, 0] > 120) & (frames(moments)[0][:, :, 2] < 90)  # the cart is brown
  assert 3 < body.sum() < 300


def test_an_action_is_held_and_an_episode_ends(cartpole):
  fine = Environment(Setup(size=16, repeat=1))
  coarse, summed = cartpole.reset(2), 0.0
  fine.reset(2)
  for _ in range(8):
    moment = fine.step(ACTIONS[0])
    summed += moment.reward
  fine.close()
  coarse = cartpole.step(ACTIONS[0])
  np.testing.assert_allclose(coarse.state, moment.state, atol=1e-12)
  assert coarse.reward == pytest.approx(summed)
  assert Setup().steps == 125 and Setup("walker/walk").steps == 250


def test_the_expert_swings_the_pole_up_and_keeps_the_cart_in_the_picture(cartpole):
  for seed in range(2):
    moment, total, places = cartpole.reset(seed), 0.0, []
    while not moment.last:
      moment = cartpole.step(moment.expert)
      total += moment.reward
      places.append(abs(moment.state[0]))
    assert total > 700 and max(places) < 1.2, (seed, total)


class Slider:
  """An environment like those of dm_control, whose actions are in [0, 4]: the reward is the action."""

  def __init__(self, inner):
    self.physics, self.task = inner.physics, inner.task
    self._left = 0

  def action_spec(self):
    return types.SimpleNamespace(shape=(1,), minimum=np.zeros(1), maximum=np.full(1, 4.0))

  def reset(self):
    self._left = 5

  def step(self, action):
    self._left -= 1
    return types.SimpleNamespace(reward=float(action[0]), last=lambda: self._left == 0)

  def close(self):
    pass


def make_slider():
  from dm_control import suite

  return Slider(suite.load("pendulum", "swingup", task_kwargs={"random": 0}))


def make_constant_expert(inner, repeat):
  return lambda physics: np.array([3.0])


def test_an_environment_and_an_expert_of_ones_own(simulator):
  setup = Setup(f"{__name__}:make_slider", 16, 2, f"{__name__}:make_constant_expert")
  environment = Environment(setup)
  moment = environment.reset(0)
  np.testing.assert_allclose(moment.expert, [0.5])  # 3 of 0 to 4
  moment = environment.step(np.array([1.0]))
  assert moment.reward == 8.0 and not moment.last  # held for two steps
  environment.step(np.array([1.0]))
  assert environment.step(np.array([1.0])).last
  environment.close()


@pytest.mark.parametrize(
  "setup, message",
  [
    (Setup("cartpole"), "environment='cartpole'; use DOMAIN/TASK of DeepMind Control"),
    (Setup(size=0), "size=0, .*; use a positive size"),
  ],
)
def test_wrong_setups_are_refused(setup, message):
  with pytest.raises(ValueError, match=message):
    setup.check()


def test_an_unknown_environment_names_the_nearest(simulator):
  with pytest.raises(ValueError, match="none of this name; did you mean 'cartpole/swingup'"):
    Environment(Setup("cartpole/swing"))


def test_experts_that_do_not_exist():
  with pytest.raises(ValueError, match="no expert for 'walker/walk'.*give one of your own as expert=MODULE"):
    experts.need_expert("", "walker/walk")
  with pytest.raises(ValueError, match="expert is 'numpy:nothing', but numpy has no function 'nothing'"):
    experts.need_expert("numpy:nothing", "walker/walk")


def test_a_world_without_clips_or_name_is_refused(simulator):
  environment = Environment(Setup(size=16))
  with pytest.raises(ValueError, match="'video' needs a folder of clips.*`videos`"):
    environment.reset(0, "video")
  with pytest.raises(ValueError, match="no world is called 'night'; known: train"):
    environment.reset(0, "night")
  environment.close()


def test_length_is_that_of_deepmind_control(cartpole):
  moment, count = cartpole.reset(0), 0
  while not moment.last:
    moment, count = cartpole.step(ACTIONS[0]), count + 1
  assert count == Setup().steps == module.LENGTH // 8
