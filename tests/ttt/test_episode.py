"""Learning along an episode: a linear world, the latest transition alone, a step that diverges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import ttt
from ssl_jax.abilities import Actor, Adaptable
from ssl_jax.core import Weights

KEY = jax.random.key(0)
STATE, ACTIONS, MOMENTS = 3, 2, 600


def sample_of(before, after, action):
  """A transition whose frames, of one pixel, are the states themselves."""
  clip = jnp.stack([jnp.asarray(before), jnp.asarray(after)])[:, None, None]
  return {"clip": clip.astype(jnp.float32), "action": jnp.asarray(action, jnp.float32)}


def policy(params, state, clips):
  return jnp.tanh(clips[:, -1, 0, 0] @ params["encoder"] @ params["policy"])


def inverse_loss(params, state, task):
  states = task["clip"][:, :, 0, 0] @ params["encoder"]
  return ((states.reshape(len(states), -1) @ params["task"] - task["action"]) ** 2).mean(1)


ADAPTABLE = Adaptable(
  make_task=lambda key, batch: batch,
  loss=inverse_loss,
  predict=lambda params, state, samples: policy(params, state, samples["clip"]),
  trainable=("task",),
)
ACTOR = Actor(policy, 1, 1, ACTIONS, True)
WEIGHTS = Weights(
  {
    "encoder": jnp.eye(STATE),
    "policy": jax.random.normal(KEY, (STATE, ACTIONS)),
    "task": jnp.zeros((2 * STATE, ACTIONS)),
  },
  {},
)


def programs(rate: float = 0.1, trainable=("task",), updates: int = 1):
  adapt = ttt.make_adapt(ADAPTABLE, lambda key, batch: batch, _adam(rate), steps=MOMENTS * updates, copies=2)
  episode = ttt.make_episode(adapt, ADAPTABLE, ACTOR, updates=updates)
  first = ttt.select_params(WEIGHTS.params, trainable)
  return jax.jit(episode.begin), jax.jit(episode.respond), first


def _adam(rate):
  rule = optax.adam(rate)

  def update(updates, state, params=None):
    with jax.numpy_dtype_promotion("standard"):
      return rule.update(updates, state, params)

  return optax.GradientTransformation(rule.init, update)


@functools.cache
def losses(shuffled: bool) -> np.ndarray:
  """The losses along an episode of the linear world s' = s + B a, bounded by a walk that returns."""
  rng = np.random.default_rng(0)
  push = rng.normal(size=(ACTIONS, STATE))
  begin, respond, first = programs()
  state, _ = begin(WEIGHTS, first, KEY, sample_of(np.zeros(STATE), np.zeros(STATE), np.zeros(ACTIONS)), 0)
  found, past = [], []
  for moment in range(MOMENTS):
    before, action = rng.uniform(-1, 1, STATE), rng.uniform(-1, 1, ACTIONS)
    past.append(action)
    told = past[rng.integers(len(past))] if shuffled else action
    state, response = respond(WEIGHTS, state, sample_of(before, before + action @ push, told), moment)
    found.append(float(response.loss))
  return np.array(found)


def test_in_a_linear_world_the_loss_reaches_zero():
  assert losses(False)[:20].mean() > 0.2 and losses(False)[-30:].max() < 1e-3


def test_with_shuffled_actions_the_loss_stays_at_the_variance_of_the_actions():
  variance = 1 / 3  # of numbers uniform in [-1, 1]
  assert 0.8 * variance < losses(True)[-150:].mean() < 1.6 * variance


def test_a_step_uses_the_latest_transition_only():
  begin, respond, first = programs()
  rng = np.random.default_rng(1)
  transitions = [sample_of(rng.normal(size=3), rng.normal(size=3), rng.normal(size=2)) for _ in range(3)]
  state, _ = begin(WEIGHTS, first, KEY, transitions[0], 0)
  state, _ = respond(WEIGHTS, state, transitions[1], 0)
  one, _ = respond(WEIGHTS, state, transitions[2], 1)
  # Another sample in the past, with the same parameters and the same state of Adam, changes nothing.
  other, _ = respond(WEIGHTS, state._replace(sample=transitions[0]), transitions[2], 1)
  jax.tree.map(np.testing.assert_array_equal, one.trainable, other.trainable)
  # By hand: Adam's second step, from the gradients at the two transitions.
  rule = _adam(0.1)
  params, memory = first, rule.init(first)
  for transition in transitions[1:]:
    batch = {name: leaf[None] for name, leaf in transition.items()}
    gradient = jax.grad(lambda p, b=batch: inverse_loss(ttt.merge_params(p, WEIGHTS.params), {}, b).mean())(
      params
    )
    updates, memory = rule.update(gradient, memory)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(one.trainable["task"], params["task"], rtol=1e-5)


def test_it_acts_with_what_it_has_learned_and_tells_what_it_would_have_done():
  begin, respond, first = programs(trainable=("encoder", "task"))
  sample = sample_of([1.0, 0, 0], [0, 1.0, 0], [0.5, -0.5])
  state, start = begin(WEIGHTS, first, KEY, sample, 0)
  trained = policy(WEIGHTS.params, {}, sample["clip"][None])[0]
  np.testing.assert_allclose(start.action, trained, rtol=1e-6)
  state, _ = respond(WEIGHTS, state, sample, 0)  # the head is zero: no gradient reaches the encoder yet
  state, response = respond(WEIGHTS, state, sample, 1)
  learned = policy(ttt.merge_params(state.trainable, WEIGHTS.params), {}, sample["clip"][None])[0]
  np.testing.assert_allclose(response.action, learned, rtol=1e-6)
  np.testing.assert_allclose(response.trained, trained, rtol=1e-6)
  assert np.abs(response.action - response.trained).max() > 1e-3


def test_several_updates_at_a_transition_are_several_steps():
  sample = sample_of([1.0, 0, 0], [0, 1.0, 0], [0.5, -0.5])
  found = []
  for updates, calls in ((1, 3), (3, 1)):
    begin, respond, first = programs(updates=updates)
    state, _ = begin(WEIGHTS, first, KEY, sample, 0)
    for moment in range(calls):
      state, _ = respond(WEIGHTS, state, sample, moment)
    found.append(state.trainable["task"])
  np.testing.assert_allclose(*found, rtol=1e-6)


def test_a_step_that_is_not_finite_is_not_taken():
  begin, respond, first = programs()
  good = sample_of([1.0, 0, 0], [0, 1.0, 0], [0.5, -0.5])
  state, _ = begin(WEIGHTS, first, KEY, good, 0)
  after, response = respond(WEIGHTS, state, {**good, "action": jnp.full(2, jnp.inf)}, 0)
  assert bool(response.diverged) and np.isfinite(response.action).all()
  jax.tree.map(np.testing.assert_array_equal, after.trainable, state.trainable)
  again, response = respond(WEIGHTS, after, good, 1)
  assert not bool(response.diverged) and np.abs(again.trainable["task"]).max() > 0
  with pytest.raises(ValueError, match="use 0 or more steps"):
    ttt.make_adapt(ADAPTABLE, lambda key, batch: batch, _adam(0.1), steps=-1, copies=2)
