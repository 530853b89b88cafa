"""The inner loop of test-time training: a few optimiser steps on the self-supervised loss of one sample, and
then a prediction.

A sample is a record as the host delivers it, without labels and without a batch axis: {"image":
uint8[H, W, 3]}, a window of frames, or a transition.

Source: Sun et al. 2020, section 2 and released code (rotation); Gandelsman et al. 2022 (masked autoencoding).
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from ssl_jax.abilities import Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.config.checked import nearest
from ssl_jax.core import Augment, Batch, Key, PyTree, Weights

ALWAYS = 1.001  # a threshold above every certainty, so that all samples are adapted to
CLEAN = "clean/"  # prefix of the names of the copies without augmentation, see `Adaptable.clean`

Sample = dict[str, jax.Array]  # one example's arrays, by name
# (sample, number of the step, number of rows) -> the batch from which a step learns, before augmentation
Draw = Callable[[Sample, Any, int], Batch]


class AdaptState(NamedTuple):
  """The state of the adaptation to one sample between two steps."""

  trainable: PyTree  # the parameters that adapt; None in place of the others
  opt_state: PyTree
  sample: Sample
  key: Key
  wanted: jax.Array  # bool[]: the network's certainty of the task is below the threshold
  losses: jax.Array  # f32[steps]: the loss before each step
  # f32[K, ...]: the logits before and after adaptation, or with `curve=True` before it and after every step
  curve: jax.Array


class AdaptResult(NamedTuple):
  """The result for one sample."""

  logits: jax.Array  # f32[...]: after adaptation, or before it if the sample was not adapted to
  curve: jax.Array  # f32[K, ...]: as in AdaptState; the first row is the prediction before adaptation
  losses: jax.Array  # f32[steps]
  adapted: jax.Array  # bool[]
  diverged: jax.Array  # bool[]: a loss, a parameter or a logit was not finite


class Adapt(NamedTuple):
  """Test-time training on ONE sample as three pure functions, which the caller can vmap over samples and join
  with a loop over steps.
  """

  begin: Callable[..., AdaptState]  # (weights, trainable, key, sample, index) -> AdaptState
  step: Callable[..., AdaptState]  # (weights, state, number of the step) -> AdaptState
  # (weights, first trainable, state) -> (AdaptResult, trainable)
  finish: Callable[..., tuple[AdaptResult, PyTree]]
  steps: int
  copies: int


class _Loop(NamedTuple):
  """The arguments of `make_adapt`."""

  adaptable: Adaptable
  augment: Augment
  optimizer: optax.GradientTransformation
  steps: int
  copies: int
  micro_batches: int
  threshold: float
  curve: bool
  draw: Draw


def repeat(sample: Sample, step, copies: int) -> Batch:
  """`copies` copies of the sample."""
  return {name: jnp.broadcast_to(leaf[None], (copies, *leaf.shape)) for name, leaf in sample.items()}


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
  draw: Draw = repeat,
) -> Adapt:
  """Returns the inner loop. One step augments `copies` copies of the sample, makes the task from them, and
  updates the trainable parameters once.

  The functions take `weights` (all parameters that could adapt, model_state) and `trainable`, the initial
  values of the parameters that adapt, see `select_params`. The optimiser state is initialised for each
  sample. Random numbers depend only on (key, index of the sample, step).

  Args:
    adaptable: the ability of the method.
    augment: applied to the copies, one view each; uint8 in.
    steps: optimiser steps for each sample, 0 or more.
    copies: number of copies of the sample in each step.
    micro_batches: number of parts that the copies are split into to save memory; the gradient is the same.
    threshold: a sample is adapted to only if the network's certainty of the task, measured on the sample
      without augmentation, is below this value.
    curve: keep the logits after every step, at the cost of one more prediction per step.
    draw: makes the `copies` rows of a step out of the sample; by default they are copies of it. A sample that
      is a window of frames has other rows, see `window.draw_rows`.
  Raises: ValueError for values out of range, for a threshold if the method has no certainty, or for several
    parts if the loss needs all copies at once.
  """
  if steps < 0 or copies < 1:
    raise ValueError(f"steps={steps} and copies={copies}; use 0 or more steps on 1 or more copies")
  if micro_batches < 1 or copies % micro_batches:
    raise ValueError(f"micro_batches={micro_batches} does not divide copies={copies}; use a divisor")
  if micro_batches > 1 and adaptable.whole:
    raise ValueError(
      f"micro_batches={micro_batches}, but this objective needs all copies at once, for their mean "
      "prediction or their BatchNorm statistics; use micro_batches=1 and fewer copies"
    )
  if threshold < 1 and adaptable.certainty is None:
    raise ValueError(
      f"threshold={threshold}, but this method has no certainty to compare it with; do not set a threshold"
    )
  loop = _Loop(adaptable, augment, optimizer, steps, copies, micro_batches, threshold, curve, draw)
  bound = functools.partial
  return Adapt(bound(_begin, loop), bound(_step, loop), bound(_finish, loop), steps, copies)


def _begin(loop: _Loop, weights: Weights, trainable: PyTree, key: Key, sample: Sample, index) -> AdaptState:
  wanted = jnp.array(True)
  if loop.threshold < 1:
    params = merge_params(trainable, weights.params)
    certainty = cast(Callable[..., jax.Array], loop.adaptable.certainty)  # `make_adapt` has checked it
    wanted = certainty(params, weights.model_state, alone(sample))[0] < loop.threshold
  first = _predict(loop, weights, trainable, sample)
  rows = jnp.broadcast_to(first[None], (loop.steps + 1 if loop.curve else 2, *first.shape))
  opt_state, key = loop.optimizer.init(trainable), jax.random.fold_in(key, index)
  return AdaptState(trainable, opt_state, sample, key, wanted, jnp.zeros(loop.steps), rows)


def _step(loop: _Loop, weights: Weights, state: AdaptState, number) -> AdaptState:
  views_key, task_key = jax.random.split(jax.random.fold_in(state.key, number))
  rows = loop.draw(state.sample, number, loop.copies)
  views = loop.augment(views_key, rows)
  if loop.adaptable.clean:
    views = views | {CLEAN + name: to_float(leaf) for name, leaf in rows.items()}
  task = loop.adaptable.make_task(task_key, views)

  def loss(trainable, part):
    params = merge_params(trainable, weights.params)
    return loop.adaptable.loss(params, weights.model_state, part).mean()

  if loop.adaptable.update is not None:
    value, opt_state = loss(state.trainable, task), state.opt_state
    params = loop.adaptable.update(merge_params(state.trainable, weights.params), weights.model_state, task)
    trainable = _same_leaves(state.trainable, params)
  else:
    value, gradient = _in_parts(jax.value_and_grad(loss), state.trainable, task, loop.micro_batches)
    updates, opt_state = loop.optimizer.update(gradient, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
  curve = state.curve
  if loop.curve:
    curve = curve.at[number + 1].set(_predict(loop, weights, trainable, state.sample))
  losses = state.losses.at[number].set(value)
  return state._replace(trainable=trainable, opt_state=opt_state, losses=losses, curve=curve)


def _finish(loop: _Loop, weights: Weights, first: PyTree, state: AdaptState) -> tuple[AdaptResult, PyTree]:
  known = loop.curve or not loop.steps
  last = state.curve[-1] if known else _predict(loop, weights, state.trainable, state.sample)
  rows = state.curve.at[-1].set(last)
  finite = jnp.isfinite(state.losses).all() & jnp.isfinite(last).all()
  for leaf in jax.tree.leaves(state.trainable):
    finite &= jnp.isfinite(leaf).all()
  adapted = finite & state.wanted
  trainable = jax.tree.map(lambda new, old: jnp.where(adapted, new, old), state.trainable, first)
  logits, diverged = jnp.where(adapted, last, rows[0]), state.wanted & ~finite
  return AdaptResult(logits, rows, state.losses, adapted, diverged), trainable


def _predict(loop: _Loop, weights: Weights, trainable: PyTree, sample: Sample) -> jax.Array:
  params = merge_params(trainable, weights.params)
  return loop.adaptable.predict(params, weights.model_state, alone(sample))[0]


def alone(sample: Sample) -> Batch:
  """Returns the sample without augmentation as a batch of one; uint8 becomes f32 in [0, 1]."""
  return {name: to_float(leaf)[None] for name, leaf in sample.items()}


def select_params(params: PyTree, names: tuple[str, ...]) -> PyTree:
  """Returns the parameters that `names` selects, with None in place of the others.

  Args:
    names: each is the first part of a pytree path ("encoder", "decoder/mask"), or a pattern for a whole path
      ("encoder/*/kernel": every matrix of the encoder).
  Raises: ValueError for a name that matches no leaf, with the nearest names.
  """
  paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  for name in names:
    if not any(_selects(name, path) for path in paths):
      known = {"/".join(path.split("/")[:depth]) for path in paths for depth in (1, 2)}
      raise ValueError(f"trainable: no parameter is called {name!r}{nearest(name, known)}")

  def keep(path, leaf):
    return leaf if any(_selects(name, _path(path)) for name in names) else None

  return jax.tree_util.tree_map_with_path(keep, params)


def merge_params(trainable: PyTree, params: PyTree) -> PyTree:
  """Returns `params`, in which the leaves of `trainable` that are not None replace the original ones."""
  is_none = lambda leaf: leaf is None
  return jax.tree.map(lambda new, old: old if new is None else new, trainable, params, is_leaf=is_none)


def _same_leaves(trainable: PyTree, params: PyTree) -> PyTree:
  """The leaves of `params` that `trainable` has, and None in place of the others."""
  is_none = lambda leaf: leaf is None
  return jax.tree.map(lambda old, new: None if old is None else new, trainable, params, is_leaf=is_none)


def _in_parts(value_and_grad, trainable: PyTree, task: PyTree, count: int) -> tuple[jax.Array, PyTree]:
  """Returns the mean of the value and of the gradient over `count` equal parts of a task. The parts are
  processed in a compiled loop, except on CPU.
  """
  parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, count, *leaf.shape[1:]), 1, 0), task)
  first = jax.tree.map(lambda leaf: leaf[0], parts)
  if count == 1:
    return value_and_grad(trainable, first)

  def add(total, part):
    return jax.tree.map(jnp.add, total, value_and_grad(trainable, part)), None

  def looped(parts):  # XLA keeps the temporaries of only one part
    shapes = jax.eval_shape(value_and_grad, trainable, first)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, start, parts)[0]

  def unrolled(parts):  # a convolution inside a loop is slow on CPU
    total = value_and_grad(trainable, first)
    for i in range(1, count):
      total, _ = add(total, jax.tree.map(lambda leaf, i=i: leaf[i], parts))
    return total

  total = jax.lax.platform_dependent(parts, cpu=unrolled, default=looped)
  return jax.tree.map(lambda leaf: leaf / count, total)


def _path(path: tuple[Any, ...]) -> str:
  return "/".join(str(getattr(key, "key", key)) for key in path)


def _selects(name: str, path: str) -> bool:
  return path == name or path.startswith(name + "/") or fnmatch.fnmatchcase(path, name)
