"""Predictions of a frame that are averaged: over augmented copies of it, and over the frames before it.

The functions take one frame, {"image": uint8[H, W, 3], "image_size": i32[2]}, and have static shapes. Of
logits f32[H, W, C] only the pixels of the image count; those of the padding are arbitrary.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_jax.augment.crops import to_float
from ssl_jax.core import Key, PyTree, Weights
from ssl_jax.ttt.inner_loop import Sample, merge_params

SHIFT = 16  # pixels by which a copy is moved at most, the patch of most vision transformers
OWN = 0.5  # weight of the prediction without augmentation, which decides between classes of equal votes


def first_ballots(logits: jax.Array) -> jax.Array:
  """f32[H, W, C]: OWN for the class that each pixel has without augmentation, 0 for the others."""
  return OWN * jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])


def add_ballots(
  predict: Callable[..., jax.Array],
  weights: Weights,
  trainable: PyTree,
  key: Key,
  sample: Sample,
  index: jax.Array,
  number: jax.Array,
  ballots: jax.Array,
) -> jax.Array:
  """Adds one for the class of each pixel in a mirrored or moved copy of the frame.

  A copy is mirrored left and right with probability 1/2 and moved by up to SHIFT pixels each way; its border
  is repeated. Pixels that leave the frame have no vote.

  Args:
    predict: of the ability Adaptable.
    index: i32[], of the frame, and `number` i32[], of the copy; what is drawn depends on both and the key.
    ballots: f32[H, W, C].
  """
  flip_key, shift_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, index), number))
  flip = jax.random.bernoulli(flip_key)
  down, right = jax.random.randint(shift_key, (2,), -SHIFT, SHIFT + 1)
  height, width = sample["image_size"]
  rows, columns = (jnp.arange(side) for side in ballots.shape[:2])
  mirror = lambda places: jnp.where(flip, width - 1 - places, places)
  # where the pixels of the copy come from, and where those of the frame lie in it
  source = jnp.clip(rows - down, 0, height - 1), jnp.clip(mirror(columns - right), 0, width - 1)
  there = rows + down, mirror(columns) + right
  copy = to_float(sample["image"])[source[0]][:, source[1]]
  batch = {"image": copy[None], "image_size": sample["image_size"][None]}
  logits = predict(merge_params(trainable, weights.params), weights.model_state, batch)[0]
  inside = [(place >= 0) & (place < bound) for place, bound in zip(there, (height, width))]
  place = [jnp.clip(place, 0, side - 1) for place, side in zip(there, ballots.shape[:2])]
  chosen = logits.argmax(-1)[place[0]][:, place[1]]
  seen = inside[0][:, None] & inside[1][None]
  return ballots + jnp.where(seen[..., None], jax.nn.one_hot(chosen, ballots.shape[-1]), 0)


def shares(ballots: jax.Array) -> jax.Array:
  """f32[H, W, C]: the share of each class of the votes of a pixel."""
  return ballots / ballots.sum(-1, keepdims=True)


def smooth(smoothing: float, mean: jax.Array, probabilities: jax.Array) -> jax.Array:
  """f32[H, W, C]: the exponential mean of the probabilities of the frames so far."""
  return smoothing * mean + (1 - smoothing) * probabilities
