"""Rotation prediction: predict by which multiple of 90 degrees an image has been rotated."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax.abilities import PretextExamples
from ssl_jax.augment import ops
from ssl_jax.core import DataSpec, Method, Weights
from ssl_jax.methods.pretext import pretext_template
from ssl_jax.models import Network, heads, network, split, stack

ABILITIES = pretext_template.ABILITIES
TURNS = ("0°", "90°", "180°", "270°")  # anticlockwise; a target is an index into this tuple


def make(
  encoder: Network, data: DataSpec, *, copies: Literal["four", "one"] = "four", branch: str = ""
) -> Method:
  """Four-way classification of exact quarter turns.

  Args:
    encoder: the image network.
    data: not used; all methods have the same signature.
    copies: "four": each image in all four rotations, so that a batch of B images makes 4 B balanced inputs;
      "one": each image in one random rotation, B inputs.
    branch: the layer of a ResNet at which the branch of the task begins. The layers behind it belong to the
      head of the task, and the representation ends there (test-time training shares the trunk between this
      head and a classifier). "": the whole encoder is the representation, and the head is one linear layer.
  Raises: ValueError for a branch that is not a layer of the encoder.
  Source: Gidaris, Singh, Komodakis 2018; `branch` as in Sun et al. 2020.
  """
  linear, score = network(heads.Linear(len(TURNS))), pretext_template.score_classes
  if not branch:
    return pretext_template.make_pretext_method(encoder, linear, ROTATIONS[copies], score)
  trunk, rest = split(encoder, branch)

  def maps(params, model_state, images, **call):
    return trunk.apply(Weights(params["encoder"], model_state["encoder"]), images, **call)[0]

  read = (lambda *args: maps(*args).mean((1, 2)), lambda *args: maps(*args, pyramid=True))
  return pretext_template.make_pretext_method(trunk, stack(rest, linear), ROTATIONS[copies], score, read=read)


def four_turns(key: jax.Array, images: jax.Array) -> PretextExamples:
  """Shows each image f32[B, S, S, 3] in all four rotations: inputs [B, 4, S, S, 3].

  The rotation is exact, because traces of an interpolation would reveal the answer.
  """
  turned = jnp.stack([jax.vmap(lambda image, k=k: ops.rotate(image, k))(images) for k in range(4)], 1)
  targets = jnp.tile(jnp.arange(4)[None], (len(images), 1))
  return PretextExamples(turned, targets, TURNS, "quarter turns")


def one_turn(key: jax.Array, images: jax.Array) -> PretextExamples:
  """Shows each image f32[B, S, S, 3] in one random rotation: inputs [B, 1, S, S, 3]."""
  turns = jax.random.randint(key, (len(images),), 0, 4)
  turned = jax.vmap(ops.rotate)(images, turns)[:, None]
  return PretextExamples(turned, turns[:, None], ("turned",), "quarter turns")


ROTATIONS = {"four": four_turns, "one": one_turn}
