"""The inner loop of test-time training: a few optimiser steps on one image's self-supervised loss, then a prediction.

Source: Sun et al. 2020, section 2 and released code (rotation); Gandelsman et al. 2022 (masked autoencoding).
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.augment.crops import to_float
from ssl_jax.config.checked import nearest
from ssl_jax.core import Adaptable, Augment, Key, PyTree, Weights

ALWAYS = 1.001  # a threshold above every certainty: each image is adapted to


class AdaptState(NamedTuple):
  """Learning on one image, under way."""

  moving: PyTree  # the params that move; None in the place of the others
  opt_state: PyTree
  image: jax.Array  # u8[H, W, 3]
  key: Key
  wanted: jax.Array  # bool[]: the network is not certain enough of the task
  losses: jax.Array  # f32[steps]: each before its step
  curve: jax.Array  # f32[K, C]: logits at first and last, or, if asked for, at first and after every step


class AdaptResult(NamedTuple):
  """What came of an image."""

  logits: jax.Array  # f32[C]: after learning, or those before it where nothing was learned
  curve: (
    jax.Array
  )  # f32[K, C]: as in AdaptState; the first row is what the network says before learning on the image
  losses: jax.Array  # f32[steps]
  adapted: jax.Array  # bool[]
  diverged: jax.Array  # bool[]: a loss, a weight or a logit was not finite


class Adapt(NamedTuple):
  """Test-time training on ONE image in three pure functions, to be vmapped over images and joined by a loop over steps."""

  begin: Callable[..., AdaptState]  # (weights, moving, key, image u8[H, W, 3], index) -> AdaptState
  step: Callable[..., AdaptState]  # (weights, lesson, number of the step) -> AdaptState
  finish: Callable[
    ..., tuple[AdaptResult, PyTree]
  ]  # (weights, moving at the beginning, lesson) -> (AdaptResult, moving)
  steps: int
  copies: int


def make_adapt(
  adaptable: Adaptable,
  augment: Augment,
  optimizer: optax.GradientTransformation,
  *,
  steps: int,
  copies: int,
  micro_batches: int = 1,
  threshold: float = ALWAYS,
  curve: bool = False,
) -> Adapt:
  """The inner loop. One step: augment `copies` copies of the image, pose the task, one update of the moving leaves.

  `weights` are (all params that could move, model_state), see `select_params`; `moving` are those to begin with. The optimiser starts
  afresh for each image. Randomness is that of (key, index of the image, step): of nothing else.

  Args:
    adaptable: of the method. augment: what happens to the copies, one view each, uint8 in.
    steps: optimiser steps an image, 0 or more. copies: of the image in each. micro_batches: parts that the copies are cut into, to
      save memory; the gradient is the same.
    threshold: an image is adapted to only if the network's certainty of the task on the plain image is below it.
    curve: keep the logits after every step, at one more prediction each.
  Raises: ValueError for numbers that make no sense, or a threshold where the method knows no certainty.
  """
  if steps < 0 or copies < 1:
    raise ValueError(f"steps={steps} and copies={copies}; use 0 or more steps on 1 or more copies")
  if micro_batches < 1 or copies % micro_batches:
    raise ValueError(f"micro_batches={micro_batches} does not divide copies={copies}; use a divisor")
  if threshold < 1 and adaptable.certainty is None:
    raise ValueError(
      f"threshold={threshold}, but this method has no certainty to compare it with; leave the threshold out"
    )

  def predict(weights: Weights, moving: PyTree, image: jax.Array) -> jax.Array:
    return adaptable.predict(
      merge_params(moving, weights.params), weights.model_state, to_float(image)[None]
    )[0]

  def begin(weights, moving, key, image, index):
    wanted = jnp.array(True)
    if threshold < 1:
      certain = adaptable.certainty(
        merge_params(moving, weights.params), weights.model_state, to_float(image)[None]
      )[0]
      wanted = certain < threshold
    first = predict(weights, moving, image)
    rows = jnp.broadcast_to(first[None], (steps + 1 if curve else 2, *first.shape))
    return AdaptState(
      moving, optimizer.init(moving), image, jax.random.fold_in(key, index), wanted, jnp.zeros(steps), rows
    )

  def step(weights, lesson, number):
    views_key, pose_key = jax.random.split(jax.random.fold_in(lesson.key, number))
    same = jnp.broadcast_to(lesson.image[None], (copies, *lesson.image.shape))
    task = adaptable.pose(pose_key, augment(views_key, {"image": same})["image"])

    def loss(moving, part):
      return adaptable.loss(merge_params(moving, weights.params), weights.model_state, part).mean()

    value, gradient = _in_parts(jax.value_and_grad(loss), lesson.moving, task, micro_batches)
    updates, opt_state = optimizer.update(gradient, lesson.opt_state, lesson.moving)
    moving = optax.apply_updates(lesson.moving, updates)
    kept = lesson.curve.at[number + 1].set(predict(weights, moving, lesson.image)) if curve else lesson.curve
    return lesson._replace(
      moving=moving, opt_state=opt_state, losses=lesson.losses.at[number].set(value), curve=kept
    )

  def finish(weights, moving, lesson):
    last = lesson.curve[-1] if curve or not steps else predict(weights, lesson.moving, lesson.image)
    rows = lesson.curve.at[-1].set(last)
    sound = jnp.isfinite(lesson.losses).all() & jnp.isfinite(last).all()
    for leaf in jax.tree.leaves(lesson.moving):
      sound &= jnp.isfinite(leaf).all()
    adapted = sound & lesson.wanted
    moved = jax.tree.map(lambda new, old: jnp.where(adapted, new, old), lesson.moving, moving)
    return AdaptResult(
      jnp.where(adapted, last, rows[0]), rows, lesson.losses, adapted, lesson.wanted & ~sound
    ), moved

  return Adapt(begin, step, finish, steps, copies)


def select_params(params: PyTree, moves: tuple[str, ...]) -> PyTree:
  """The leaves that `moves` names, None in the place of the others.

  Args:
    moves: beginnings of paths ("encoder/conv_stem"), or patterns for all of a path ("encoder/*/kernel": every matrix below).
  Raises: ValueError for a name that fits no leaf, naming what there is.
  """
  paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  for name in moves:
    if not any(_named(path, name) for path in paths):
      known = {"/".join(path.split("/")[:depth]) for path in paths for depth in (1, 2)}
      raise ValueError(f"moves: no parameter is called {name!r}{nearest(name, known)}")
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf if any(_named(_path(path), name) for name in moves) else None, params
  )


def _in_parts(gradient_of, moving: PyTree, task: PyTree, count: int) -> tuple[jax.Array, PyTree]:
  """The mean of value and gradient over `count` equal parts of a task, one after the other where a loop costs nothing."""
  parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, count, *leaf.shape[1:]), 1, 0), task)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  if count == 1:
    return gradient_of(moving, first)

  def add(total, part):
    return jax.tree.map(jnp.add, total, gradient_of(moving, part)), None

  def looped(parts):  # whose temporaries are those of one part
    start = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(gradient_of, moving, first)
    )
    return jax.lax.scan(add, start, parts)[0]

  def unrolled(parts):  # a convolution inside a loop is slow on CPU
    return functools.reduce(
      lambda total, i: add(total, jax.tree.map(lambda leaf: leaf[i], parts))[0],
      range(1, count),
      gradient_of(moving, first),
    )

  total = jax.lax.platform_dependent(parts, cpu=unrolled, default=looped)
  return jax.tree.map(lambda leaf: leaf / count, total)


def merge_params(moving: PyTree, params: PyTree) -> PyTree:
  """`params` with the leaves that `moving` holds."""
  return jax.tree.map(
    lambda new, old: old if new is None else new, moving, params, is_leaf=lambda leaf: leaf is None
  )


def _path(path: tuple[Any, ...]) -> str:
  return "/".join(str(getattr(key, "key", key)) for key in path)


def _named(path: str, name: str) -> bool:
  return path == name or path.startswith(name + "/") or fnmatch.fnmatchcase(path, name)
