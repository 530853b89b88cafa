"""The whole abstraction: a method is four pure functions, a run is one pytree, a step joins them.

Read top to bottom. Nothing here knows a method, a network or a device by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ssl_jax.metrics import Mean

PyTree = Any
Key = jax.Array
Batch = dict[
  str, jax.Array
]  # "image": uint8[B, H, W, 3], "label": i32[B]; the batch axis leads in every leaf
Metrics = dict[str, Mean]
Augment = Callable[
  [Key, Batch], Batch
]  # on device: uint8 in, f32 in [0, 1] out ("image", or "views" [B, V, H, W, 3])


class DataSpec(NamedTuple):
  """What a method may know of the data before it sees any."""

  num_examples: int
  num_classes: int
  batch_size: int  # global


class Weights(NamedTuple):
  """What a network needs to run: parameters and the state that no gradient moves (BatchNorm statistics)."""

  params: PyTree
  model_state: PyTree


class Init(NamedTuple):
  """What a method starts from."""

  params: PyTree
  model_state: PyTree
  extra: PyTree = ()  # the method's own state: a typed NamedTuple, or (). A field `ema: Weights` can be evaluated.


class Carry(NamedTuple):
  """What a loss hands to `after_update`. Where a batch is taken in parts, rows are joined and the rest is averaged over the parts."""

  rows: PyTree = ()  # leaves lead with the batch axis; MoCo: this step's keys
  means: PyTree = ()  # MoCo: the key encoder's statistics


class Aux(NamedTuple):
  """What a loss hands on beside its value."""

  model_state: PyTree
  carry: Carry = Carry()
  metrics: Metrics = {}


class Reconstruction(NamedTuple):
  """Images as a network that restores them sees and restores them, f32[B, H, W, 3] in [0, 1]."""

  seen: jax.Array  # what the network is given
  predicted: jax.Array  # what it answers
  pasted: jax.Array  # the answer where the image was hidden, the image where it was not


class Exercise(NamedTuple):
  """A pretext task as it is set for a batch: what the network is shown and what it should answer."""

  pieces: jax.Array  # f32[B, N, h, w, 3], mostly in [0, 1]: the turns, the patches, the tiles
  answers: jax.Array  # i32[B, M]
  names: tuple[str, ...]  # of the N pieces, for a person
  asked: str = ""  # what an answer says, for a person


class Adaptable(NamedTuple):
  """What learning at test time needs from a method. Pure functions; the views are all of ONE test image."""

  pose: Callable[
    [Key, jax.Array], PyTree
  ]  # augmented copies f32[N, H, W, 3] -> the task, every leaf [N, ...]
  loss: Callable[
    [PyTree, PyTree, PyTree], jax.Array
  ]  # (params, model_state, the task) -> f32[N], without labels
  predict: Callable[
    [PyTree, PyTree, jax.Array], jax.Array
  ]  # (params, model_state, images) -> f32[B, C] logits
  moves: tuple[
    str, ...
  ]  # which params move, as ttt.select_params reads it: "encoder", "decoder/mask", "encoder/*/kernel"
  certainty: Callable[[PyTree, PyTree, jax.Array], jax.Array] | None = (
    None  # as predict -> f32[B]: how well it solves the task
  )
  reconstruct: Callable[..., Reconstruction] | None = None  # (params, model_state, images, key), for pictures
  params: Callable[[PyTree, PyTree], PyTree] = lambda params, model_state: (
    params
  )  # all that could move: a frozen encoder too


class Method(NamedTuple):
  """A way to learn. Each function is pure, sees the global batch and names no device axis."""

  init: Callable[[Key, Batch], Init]  # batch: augmented, any values; only shapes matter
  loss: Callable[
    [PyTree, PyTree, PyTree, Batch, Key], tuple[jax.Array, Aux]
  ]  # (params, model_state, extra, batch, key)
  after_update: Callable[[PyTree, PyTree, Carry], PyTree]  # (extra, updated params, carry) -> extra
  encode: Callable[
    [PyTree, PyTree, jax.Array], jax.Array
  ]  # f32[B, H, W, 3] in [0, 1] -> f32[B, D]; deterministic
  pyramid: Callable[[PyTree, PyTree, jax.Array], dict[str, jax.Array]] | None = (
    None  # feature maps by layer name
  )
  predict: Callable[[PyTree, PyTree, jax.Array], jax.Array] | None = (
    None  # as encode -> f32[B, C]: logits of its classes
  )
  reconstruct: Callable[..., Reconstruction] | None = None  # (params, model_state, images, key, **options)
  pose: Callable[[Key, jax.Array], Exercise] | None = (
    None  # the pretext task, of images f32[B, H, W, 3] in [0, 1]
  )
  examine: Callable[[PyTree, PyTree, jax.Array], dict[str, jax.Array]] | None = (
    None  # as encode -> scores f32[B] of that task
  )
  adaptable: Adaptable | None = None  # if it can go on learning on a test image


def keep_extra(extra: PyTree, params: PyTree, carry: Carry) -> PyTree:
  """The `after_update` of a method without state of its own."""
  return extra


@flax.struct.dataclass
class TrainState:
  """All that changes during a run. Save it and the run is saved."""

  step: jax.Array  # i32[]: steps done
  params: PyTree
  model_state: PyTree
  extra: PyTree
  opt_state: PyTree
  key: Key  # constant; the randomness of a step is fold_in(key, step)


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_init(method: Method, augment: Augment, optimizer: optax.GradientTransformation):
  """Returns pure `init(key, batch) -> TrainState`; of `batch` only shapes and dtypes matter."""

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
  """Returns the pure `step(state, batch) -> (state, metrics)`; `parallel.compile_step` adds jit and shardings.

  Metrics always hold `loss` and `gradient_norm` (global L2 norm): if both are finite, so are the new parameters.

  Args:
    accumulate: parts that the augmented batch is taken in, one after the other, to save memory; gradients are averaged. A loss that is
      a mean over images is the same whatever their number; what images of a batch know of each other (BatchNorm's statistics,
      SimCLR's negatives) ends at the part.
  """

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    augment_key, loss_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    views = augment(augment_key, batch)
    learn = (
      jax.value_and_grad(method.loss, has_aux=True) if accumulate == 1 else _in_parts(method.loss, accumulate)
    )
    (loss, aux), gradients = learn(state.params, state.model_state, state.extra, views, loss_key)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    extra = method.after_update(state.extra, params, aux.carry)
    metrics = {"loss": Mean.of(loss), "gradient_norm": Mean.of(optax.tree.norm(gradients)), **aux.metrics}
    return state.replace(
      step=state.step + 1, params=params, model_state=aux.model_state, extra=extra, opt_state=opt_state
    ), metrics

  return step


def _in_parts(loss: Callable, parts: int) -> Callable:
  """`jax.value_and_grad(loss, has_aux=True)` with only one part's activations alive at a time."""

  def cut(leaf):  # rows a, a + parts, ... are part a: a device's own rows stay on it
    return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)

  def join(leaf):
    return leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])

  def learn(params, model_state, extra, batch, key):
    def one(so_far, inputs):
      gradients, model_state = so_far
      (value, aux), found = jax.value_and_grad(loss, has_aux=True)(params, model_state, extra, *inputs)
      return (jax.tree.map(jnp.add, gradients, found), aux.model_state), (value, aux.carry, aux.metrics)

    begin = (jax.tree.map(jnp.zeros_like, params), model_state)
    (gradients, model_state), (values, carry, metrics) = jax.lax.scan(
      one, begin, (jax.tree.map(cut, batch), jax.random.split(key, parts))
    )
    carry = Carry(jax.tree.map(join, carry.rows), jax.tree.map(lambda leaf: leaf.mean(0), carry.means))
    metrics = jax.tree.map(lambda leaf: leaf.sum(0), metrics)  # totals and counts
    return (values.mean(), Aux(model_state, carry, metrics)), jax.tree.map(
      lambda leaf: leaf / parts, gradients
    )

  return learn
