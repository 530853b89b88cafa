"""The core abstraction: a method is four pure functions, a run is one pytree, and a training step joins them.

Read this file from top to bottom. Nothing here depends on a particular method, network or device. What a
method can do besides learning is described in abilities.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ssl_jax.data.elements import ShapeDtype
from ssl_jax.metrics import Mean

PyTree = Any
Key = jax.Array
Batch = dict[str, jax.Array]  # keys are those of DataSpec.elements; every leaf has a leading batch axis
Metrics = dict[str, Mean]
# Runs on the device: uint8 in, f32 in [0, 1] out. One view of each image is stored as "image" [B, H, W, 3],
# several views as "views" [B, V, H, W, 3].
Augment = Callable[[Key, Batch], Batch]


class DataSpec(NamedTuple):
  """What a method may know about the data before it sees a batch."""

  num_examples: int
  num_classes: int  # 0: the data has no labels
  batch_size: int  # global, over all devices
  elements: Mapping[str, ShapeDtype] = {}  # the arrays of one example as the host delivers it, not augmented
  parts: int = 1  # number of parts that a training step divides the batch into; a loss sees one part


class Weights(NamedTuple):
  """What a network needs to run: its parameters, and the state that receives no gradient (BatchNorm
  statistics).
  """

  params: PyTree
  model_state: PyTree


class Init(NamedTuple):
  """The initial state of a method."""

  params: PyTree
  model_state: PyTree
  # The method's own state: a typed NamedTuple, or (). A field `ema: Weights` can be evaluated.
  extra: PyTree = ()


class Carry(NamedTuple):
  """What a loss passes to `after_update`. If the batch is split into parts, `rows` are concatenated over the
  parts and `means` are averaged over them.
  """

  rows: PyTree = ()  # every leaf has a leading batch axis; MoCo: the keys of this step
  means: PyTree = ()  # MoCo: the BatchNorm statistics of the key encoder


class Aux(NamedTuple):
  """What a loss returns in addition to its value."""

  model_state: PyTree
  carry: Carry = Carry()
  metrics: Metrics = {}


class Method(NamedTuple):
  """A learning method. Each function is pure, takes the global batch and names no device axis."""

  # (key, augmented batch) -> Init; only the shapes of the batch matter, its values are arbitrary
  init: Callable[[Key, Batch], Init]
  # (params, model_state, extra, augmented batch, key) -> (scalar loss, Aux)
  loss: Callable[[PyTree, PyTree, PyTree, Batch, Key], tuple[jax.Array, Aux]]
  # (extra, updated params, carry) -> extra
  after_update: Callable[[PyTree, PyTree, Carry], PyTree]
  # (params, model_state, f32 images in [0, 1]) -> f32[B, D]; deterministic
  encode: Callable[[PyTree, PyTree, jax.Array], jax.Array]
  # {Classifier: Classifier(...), ...}, see abilities.py; read with `methods.ability`
  abilities: Mapping[type, Any] = {}


def keep_extra(extra: PyTree, params: PyTree, carry: Carry) -> PyTree:
  """The `after_update` of a method that has no state of its own: returns `extra` unchanged."""
  return extra


@flax.struct.dataclass
class TrainState:
  """Everything that changes during a run, so a checkpoint of it is a checkpoint of the run."""

  step: jax.Array  # i32[]: number of completed steps
  params: PyTree
  model_state: PyTree
  extra: PyTree
  opt_state: PyTree
  key: Key  # constant; each step draws from fold_in(key, step)


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_init(
  method: Method, augment: Augment, optimizer: optax.GradientTransformation
) -> Callable[[Key, Batch], TrainState]:
  """Returns the pure function `init(key, batch) -> TrainState`; only shapes and dtypes of `batch` matter."""

  def init(key: Key, batch: Batch) -> TrainState:
    init_key, run_key = jax.random.split(key)
    params, model_state, extra = method.init(init_key, augment(init_key, batch))
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      extra=extra,
      opt_state=optimizer.init(params),
      key=run_key,
    )

  return init


def make_train_step(
  method: Method, augment: Augment, optimizer: optax.GradientTransformation, *, accumulate: int = 1
) -> Step:
  """Returns the pure function `step(state, batch) -> (state, metrics)`; `parallel.compile_step` adds jit and
  shardings.

  The metrics always contain `loss` and `gradient_norm` (the global L2 norm). If both are finite, the new
  parameters are finite too.

  Args:
    accumulate: number of parts that the augmented batch is split into. The parts are processed one after the
      other to save memory, and their gradients are averaged. A loss that is a mean over images does not
      depend on this number. Whatever couples the images of a batch (BatchNorm statistics, SimCLR's negatives)
      couples only the images of one part. The model state is updated once a step: every part starts from the
      same one, and their changes are averaged, as `Carry.means` are.
  """

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    augment_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    views = augment(augment_key, batch)
    learn = jax.value_and_grad(method.loss, has_aux=True)
    learn = learn if accumulate == 1 else _in_parts(learn, accumulate)
    (loss, aux), gradients = learn(state.params, state.model_state, state.extra, views, loss_key)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    extra = method.after_update(state.extra, params, aux.carry)
    metrics = {"loss": Mean.of(loss), "gradient_norm": Mean.of(optax.tree.norm(gradients)), **aux.metrics}
    state = dataclasses.replace(
      state, step=state.step + 1, params=params, model_state=aux.model_state, extra=extra, opt_state=opt_state
    )
    return state, metrics

  return step


def _in_parts(value_and_grad: Callable, parts: int) -> Callable:
  """Returns the same function of a batch, computed part by part, so that the activations of only one part are
  in memory at a time.
  """

  def learn(params, model_state, extra, batch, key):
    def one_part(so_far, inputs):
      (value, aux), found = value_and_grad(params, model_state, extra, *inputs)
      # Changes are added, not states, so that weights that are frozen in the state stay what they are.
      changes = jax.tree.map(jnp.subtract, aux.model_state, model_state)
      return jax.tree.map(jnp.add, so_far, (found, changes)), (value, aux.carry, aux.metrics)

    start = jax.tree.map(jnp.zeros_like, (params, model_state))
    batches = jax.tree.map(lambda leaf: _split_rows(leaf, parts), batch)
    (gradients, changes), found = jax.lax.scan(one_part, start, (batches, jax.random.split(key, parts)))
    values, carry, metrics = found
    model_state = jax.tree.map(lambda old, change: old + change / parts, model_state, changes)
    carry = Carry(jax.tree.map(_join_rows, carry.rows), jax.tree.map(lambda leaf: leaf.mean(0), carry.means))
    metrics = jax.tree.map(lambda leaf: leaf.sum(0), metrics)  # totals and counts
    gradients = jax.tree.map(lambda leaf: leaf / parts, gradients)
    return (values.mean(), Aux(model_state, carry, metrics)), gradients

  return learn


def _split_rows(leaf: jax.Array, parts: int) -> jax.Array:
  """[B, ...] -> [parts, B / parts, ...]. Part a holds rows a, a + parts, ..., so every row stays on its
  device.
  """
  return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)


def _join_rows(leaf: jax.Array) -> jax.Array:
  """The inverse of `_split_rows`."""
  return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])
