"""Learning along an episode: after each action the network learns from the transition, then acts again.

The episode is one adaptation of the inner loop, whose sample changes at each moment: the state of the
optimiser lives through the episode, and a step learns from the latest transition only.
Source: Hansen et al. 2021, section 3.2 and released code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.abilities import Actor, Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Weights
from ssl_jax.ttt.inner_loop import Adapt, AdaptState, Sample, merge_params


class Response(NamedTuple):
  """What the network does at a moment, for ONE episode."""

  action: jax.Array  # f32[A]: of the network that has learned
  trained: jax.Array  # f32[A]: of the network as it was trained, on the same frames
  loss: jax.Array  # f32[]: of the task, before the last step
  diverged: jax.Array  # bool[]: a parameter was not finite, and the step was not taken


class Episode(NamedTuple):
  """Learning along ONE episode as pure functions, which the caller can vmap over episodes."""

  # (weights, trainable, key, sample, number of the episode) -> (AdaptState, Response): the first moment
  begin: Callable[..., tuple[AdaptState, Response]]
  # (weights, state, sample, number of the moment) -> (AdaptState, Response): it learns, then acts
  respond: Callable[..., tuple[AdaptState, Response]]
  # (weights, sample) -> f32[A]: the trained network acts
  act: Callable[..., jax.Array]


def make_episode(adapt: Adapt, adaptable: Adaptable, actor: Actor, *, updates: int = 1) -> Episode:
  """Returns the functions of an episode.

  Args:
    adapt: whose `steps` are those of a whole episode.
    updates: steps of the optimiser at each transition.
  """

  def predict(weights: Weights, trainable, sample: Sample) -> jax.Array:
    params = merge_params(trainable, weights.params)
    return actor.act(params, weights.model_state, to_float(sample["clip"])[None])[0]

  def act(weights: Weights, sample: Sample) -> jax.Array:
    return actor.act(*weights, to_float(sample["clip"])[None])[0]

  def begin(weights: Weights, trainable, key, sample: Sample, number) -> tuple[AdaptState, Response]:
    state = adapt.begin(weights, trainable, key, sample, number)
    action = act(weights, sample)
    return state, Response(action, action, jnp.zeros(()), jnp.array(False))

  def respond(weights: Weights, state: AdaptState, sample: Sample, moment) -> tuple[AdaptState, Response]:
    before = state
    state = state._replace(sample=sample)
    for update in range(updates):
      state = adapt.step(weights, state, updates * moment + update)
    finite = jnp.array(True)
    for leaf in jax.tree.leaves(state.trainable):
      finite &= jnp.isfinite(leaf).all()
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    state = state._replace(
      trainable=keep(state.trainable, before.trainable), opt_state=keep(state.opt_state, before.opt_state)
    )
    # The barrier makes the network act as one whose update is not part of the program.
    trainable = jax.lax.optimization_barrier(state.trainable)
    loss = state.losses[updates * moment + updates - 1]
    response = Response(predict(weights, trainable, sample), act(weights, sample), loss, ~finite)
    return state, response

  return Episode(begin, respond, act)
