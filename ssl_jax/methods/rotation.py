"""Rotation prediction: which of four turns has this image been given?"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax.augment import ops
from ssl_jax.core import DataSpec, Exercise, Method, Weights
from ssl_jax.methods.pretext import pretext_template
from ssl_jax.models import Network, heads, network, split, stack

TURNS = ("0°", "90°", "180°", "270°")  # anticlockwise; the answer is the place in this list


def make(
  encoder: Network, data: DataSpec, *, copies: Literal["four", "one"] = "four", branch: str = ""
) -> Method:
  """Four-way classification of exact quarter turns.

  Args:
    encoder: the image network. data: unused; every method is built alike.
    copies: "four": each image in all four turns, so that a batch of B is 4 B inputs and balanced; "one": each image in one
      random turn, B inputs.
    branch: the layer of a ResNet at which the task leaves it. What follows belongs to the task's head alone, and the
      representation ends there (test-time training shares the trunk between this head and a classifier). "": the whole
      encoder is the representation and the head is one linear layer.
  Raises: ValueError for a branch that the encoder has not.
  Source: Gidaris, Singh, Komodakis 2018; `branch` as in Sun et al. 2020.
  """
  linear = network(heads.Linear(len(TURNS)))
  if not branch:
    return pretext_template.make_pretext_method(
      encoder, linear, POSES[copies], pretext_template.score_classes
    )
  trunk, rest = split(encoder, branch)

  def maps(params, model_state, images, **call):
    return trunk.apply(Weights(params["encoder"], model_state["encoder"]), images, **call)[0]

  return pretext_template.make_pretext_method(
    trunk,
    stack(rest, linear),
    POSES[copies],
    pretext_template.score_classes,
    read=(lambda *args: maps(*args).mean((1, 2)), lambda *args: maps(*args, pyramid=True)),
  )


def four_turns(key: jax.Array, images: jax.Array) -> Exercise:
  """Every image, f32[B, S, S, 3], in all turns: pieces [B, 4, S, S, 3]; turned exactly, since interpolation leaks the answer."""
  pieces = jnp.stack([jax.vmap(lambda image, k=k: ops.rotate(image, k))(images) for k in range(4)], 1)
  return Exercise(pieces, jnp.tile(jnp.arange(4)[None], (len(images), 1)), TURNS, "quarter turns")


def one_turn(key: jax.Array, images: jax.Array) -> Exercise:
  """Every image in one random turn: pieces [B, 1, S, S, 3]."""
  turns = jax.random.randint(key, (len(images),), 0, 4)
  return Exercise(jax.vmap(ops.rotate)(images, turns)[:, None], turns[:, None], ("turned",), "quarter turns")


POSES = {"four": four_turns, "one": one_turn}
