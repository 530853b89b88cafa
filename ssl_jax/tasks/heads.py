"""Linear classifiers on frozen features. Several learning rates are trained at once, with the same results as
one at a time.

All heads are stacked into one kernel f32[L, D, C]. They start from the same weights and see the same batches.
A batch of features is read once and multiplied by the whole stack.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax.augment.crops import to_float
from ssl_jax.core import PyTree
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import feature_function
from ssl_jax.tasks.task import TaskData

STREAM_BYTES = 256 << 20  # size of a chunk of features that is sent to the devices, if not all of them fit
BATCHNORM_EPSILON = 1e-6  # as in MAE's probe
BATCHNORM_MOMENTUM = 0.1  # weight of the current batch in the running moments
SCORE_ROWS = 4096  # test rows that are scored at once


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The settings with which heads are trained."""

  learning_rates: tuple[float, ...]  # one per head, as the optimiser uses them
  optimizer: str = "sgd"  # sgd, nesterov, lars
  momentum: float = 0.9
  weight_decay: float = 0.0  # of the kernel and the bias; of lars: of the kernel
  schedule: str = "steps"  # steps: x0.1 at 60% and 80% of the epochs; cosine to 0; constant
  warmup_epochs: int = 0
  epochs: int = 100
  batch_size: int = 256
  normalize: str = "none"  # or batchnorm: without scale and shift, with running moments in evaluation


class Moments(NamedTuple):
  """The running moments of BatchNorm."""

  mean: jax.Array  # f32[D]
  variance: jax.Array  # f32[D], unbiased


class Heads(NamedTuple):
  """Everything that changes while heads are trained."""

  step: jax.Array  # i32[]: number of completed steps
  params: PyTree  # {"kernel": f32[L, D, C], "bias": f32[L, C]}
  opt_state: PyTree
  moments: Moments | None


def init_heads(key: jax.Array, recipe: Recipe, *, width: int, num_classes: int) -> Heads:
  """Returns heads with a kernel drawn from N(0, 0.01) and bias 0, the same for every learning rate.

  Args:
    width: number of features D.
  """
  count = len(recipe.learning_rates)
  kernel = 0.01 * jax.random.normal(key, (1, width, num_classes), jnp.float32)
  params = {"kernel": jnp.tile(kernel, (count, 1, 1)), "bias": jnp.zeros((count, num_classes), jnp.float32)}
  opt_state = jax.vmap(_make_optimizer(recipe).init)(params)
  moments = None
  if recipe.normalize == "batchnorm":
    moments = Moments(jnp.zeros(width, jnp.float32), jnp.ones(width, jnp.float32))
  return Heads(jnp.zeros((), jnp.int32), params, opt_state, moments)


@functools.lru_cache(maxsize=None)  # one function per recipe, so that two backbones share a compiled program
def make_update(recipe: Recipe, *, steps_per_epoch: int) -> Callable[..., tuple[Heads, jax.Array]]:
  """Returns the pure function `update(heads, x f32[B, D], y i32[B]) -> (heads, cross-entropy f32[L])`."""
  optimizer, schedule = _make_optimizer(recipe), make_schedule(recipe, steps_per_epoch=steps_per_epoch)

  def update(heads: Heads, x: jax.Array, y: jax.Array) -> tuple[Heads, jax.Array]:
    moments = heads.moments
    if moments is not None:
      batch = Moments(x.mean(axis=0), x.var(axis=0))
      x = _normalize(x, batch)
      unbiased = batch._replace(variance=batch.variance * (len(y) / max(len(y) - 1, 1)))
      moments = jax.tree.map(lambda old, new: old + BATCHNORM_MOMENTUM * (new - old), moments, unbiased)

    def loss(params):
      losses = cross_entropy(params, x, y)
      return losses.sum(), losses  # a sum, so that each head gets its own gradient

    gradients, losses = jax.grad(loss, has_aux=True)(heads.params)
    updates, opt_state = jax.vmap(optimizer.update)(gradients, heads.opt_state, heads.params)
    rates = schedule(heads.step) * jnp.asarray(recipe.learning_rates, jnp.float32)
    params = jax.vmap(lambda rate, params, updates: jax.tree.map(lambda p, u: p - rate * u, params, updates))(
      rates, heads.params, updates
    )
    return Heads(heads.step + 1, params, opt_state, moments), losses

  return update


def cross_entropy(params: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
  """f32[L], in nats: the mean cross-entropy over the batch for each head."""
  scores = _scores(params, x)
  labels = jnp.broadcast_to(y[None, :], scores.shape[:2])
  return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean(axis=1)


def make_schedule(recipe: Recipe, *, steps_per_epoch: int) -> Callable[[jax.Array], jax.Array]:
  """Returns a function from the step to the fraction of the learning rate that is used.

  The "steps" schedule changes at the end of an epoch (as in MoCo); cosine and warm-up change at every step.
  """
  total, warmup = recipe.epochs * steps_per_epoch, recipe.warmup_epochs * steps_per_epoch
  drops = [round(part * recipe.epochs) * steps_per_epoch for part in (0.6, 0.8)]

  def schedule(step: jax.Array) -> jax.Array:
    now = jnp.asarray(step).astype(jnp.float32)
    if recipe.schedule == "cosine":
      fraction = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((now - warmup) / (total - warmup), 0, 1)))
    elif recipe.schedule == "steps":
      fraction = cast(jax.Array, 0.1 ** sum((now >= drop).astype(jnp.float32) for drop in drops))
    else:
      fraction = jnp.ones((), jnp.float32)
    return fraction * jnp.minimum(now / warmup, 1) if warmup else fraction

  return schedule


def train_on_features(
  x: np.ndarray,
  y: np.ndarray,
  *,
  num_classes: int,
  recipe: Recipe,
  mesh: Mesh,
  key: jax.Array,
  device_bytes: int,
  progress,
) -> tuple[Heads, np.ndarray]:
  """Trains heads on features that have been computed once.

  The order of epoch e is a permutation drawn from (key, e). The last incomplete batch of an epoch is dropped.
  Features of at most `device_bytes` are replicated on every device. Larger ones stay on the host and are sent
  to the devices in shuffled chunks. Both ways give the same heads.

  Args:
    x: f32[N, D], all features, on the host.
    y: i32[N], their labels.
    key: for the initial weights and the order of the rows.
    progress: called as progress(done steps, all steps, mean loss of the heads).
  Returns: (the heads, f32[L]: the mean loss of each head over the last epoch).
  Raises: ValueError if there are fewer rows than one batch.
  """
  size, steps = recipe.batch_size, len(x) // recipe.batch_size
  if not steps:
    raise ValueError(f"batch_size={size} is more than the {len(x)} training rows; use batch_size<={len(x)}")
  init_key, order_key = jax.random.split(key)
  heads = _init_on(mesh, init_key, recipe, width=x.shape[1], num_classes=num_classes)
  update = make_update(recipe, steps_per_epoch=steps)
  whole = x.nbytes <= device_bytes
  source = placement.replicate((x, y), mesh) if whole else None
  chunk = steps if whole else max(1, min(steps, STREAM_BYTES // (size * x[0].nbytes)))
  before, done, total, recent = None, 0, recipe.epochs * steps, []
  for epoch in range(recipe.epochs):
    recent = []
    order = np.random.default_rng((_seed(order_key), epoch)).permutation(len(x))[: steps * size]
    for rows in np.split(order.reshape(steps, size).astype(np.int32), range(chunk, steps, chunk)):
      if whole:
        rows_on_mesh = placement.spread(rows, mesh, axis=1)
        heads, losses = _scan_rows(heads, source, rows_on_mesh, update=update, mesh=mesh)
      else:
        batches = placement.spread(x[rows], mesh, axis=1), placement.spread(y[rows], mesh, axis=1)
        heads, losses = _scan_batches(heads, batches, update=update, mesh=mesh)
      if before is not None:  # report the previous chunk, so that the devices never wait for the host
        progress(done, total, float(np.asarray(before).mean()))
      before, done = losses, done + len(rows)
      recent.append(losses)
  last = np.concatenate(recent).mean(axis=0)
  progress(total, total, float(last.mean()))
  return heads, last


def train_live(
  backbone: Backbone,
  data: TaskData,
  *,
  recipe: Recipe,
  mesh: Mesh,
  key: jax.Array,
  layer: str,
  grid: int,
  progress,
) -> tuple[Heads, np.ndarray]:
  """Trains heads on augmented images, which the frozen backbone encodes in the same compiled step.

  Args:
    data: its `train_steps`, `train_size` and `augment` are used.
    key: for the initial weights, the order of the images and the augmentation.
    layer, grid: see `features.extract`.
    progress: as in `train_on_features`.
  Returns: as `train_on_features`.
  Raises: ValueError if there are fewer images than one batch, the batch size is not divisible by the number
    of devices, or `train_steps` ends early.
  """
  size, steps = recipe.batch_size, data.train_size // recipe.batch_size
  if not steps:
    raise ValueError(
      f"batch_size={size} is more than the {data.train_size} training images; "
      f"use batch_size<={data.train_size}"
    )
  if size % mesh.size:
    raise ValueError(
      f"batch_size={size} is not divisible by {mesh.size} devices; use a multiple of {mesh.size}"
    )
  init_key, order_key, augment_key = jax.random.split(key, 3)
  weights = placement.replicate(tuple(backbone.weights), mesh)
  function, total = feature_function(backbone, layer=layer, grid=grid), recipe.epochs * steps
  augment = data.augment or (lambda key, batch: {**batch, "image": to_float(batch["image"])})
  update = make_update(recipe, steps_per_epoch=steps)
  augment_data, kind = np.asarray(jax.random.key_data(augment_key)), jax.random.key_impl(augment_key)
  train_steps = cast(Callable[..., Iterator], data.train_steps)  # the task has checked it

  @functools.partial(jax.jit, donate_argnums=0)
  def step(heads, weights, batch):
    drawn = jax.random.wrap_key_data(augment_data, impl=kind)  # pyright: ignore[reportArgumentType]
    step_key = jax.random.fold_in(drawn, heads.step)
    x = function(*weights, augment(step_key, batch)["image"]).astype(jnp.float32)
    heads, losses = update(heads, x, batch["label"])
    return jax.lax.with_sharding_constraint((heads, losses), placement.replicated(mesh))

  heads, before, recent = None, None, []
  for done, batch in enumerate(train_steps(size, 0, total, _seed(order_key))):
    batch = {"image": np.asarray(batch["image"]), "label": np.asarray(batch["label"], np.int32)}
    batch = placement.to_devices(batch, mesh)
    if heads is None:
      x = jax.eval_shape(lambda w, b: function(*w, augment(augment_key, b)["image"]), weights, batch)
      heads = _init_on(mesh, init_key, recipe, width=x.shape[1], num_classes=data.num_classes)
    heads, losses = step(heads, weights, batch)
    recent = [*recent[1 - steps :], losses] if steps > 1 else [losses]
    if before is not None:
      before.block_until_ready()  # at most one step is queued on the devices
      if done % 50 == 0:
        progress(done, total, float(np.asarray(before).mean()))
    before = losses
  if heads is None or int(heads.step) != total:
    raise ValueError(f"train_steps ended after {0 if heads is None else int(heads.step)} of {total} steps")
  last = np.mean([np.asarray(losses) for losses in recent], axis=0)
  progress(total, total, float(last.mean()))
  return heads, last


def score(heads: Heads, x: np.ndarray, mesh: Mesh):
  """Yields (slice of rows, logits f32[L, b, C]) for successive blocks of the rows of x, f32[N, D]."""
  for start in range(0, len(x), SCORE_ROWS):
    block = slice(start, min(start + SCORE_ROWS, len(x)))
    # All blocks have one size, so that one compiled program serves them.
    short = 0 if len(x) <= SCORE_ROWS else start + SCORE_ROWS - block.stop
    rows = np.pad(x[block], [(0, short), (0, 0)])
    logits = np.asarray(_evaluate(heads, placement.spread(rows, mesh), mesh=mesh))
    yield block, logits[:, : block.stop - start]


def _make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
  """Returns the optimiser of one head without its learning rate, which is applied after the momentum as in
  PyTorch.
  """
  lars, kernel = recipe.optimizer == "lars", {"kernel": True, "bias": False}
  # As in MoCo v3 and MAE, LARS decays the kernel only, and only the kernel has a trust ratio.
  decay = optax.add_decayed_weights(recipe.weight_decay, kernel if lars else None)
  parts = [decay] if recipe.weight_decay else []
  if lars:
    parts.append(optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), kernel))
  return optax.chain(*parts, optax.trace(recipe.momentum, nesterov=recipe.optimizer == "nesterov"))


def _init_on(mesh: Mesh, key: jax.Array, recipe: Recipe, *, width: int, num_classes: int) -> Heads:
  return placement.replicate(init_heads(key, recipe, width=width, num_classes=num_classes), mesh)


def _scores(params: PyTree, x: jax.Array) -> jax.Array:
  """f32[L, B, C]: the logits of every head."""
  products = jnp.einsum("bd,ldc->lbc", x, params["kernel"], precision=jax.lax.Precision.HIGHEST)
  return products + params["bias"][:, None, :]


def _normalize(x: jax.Array, moments: Moments) -> jax.Array:
  return (x - moments.mean[None, :]) * jax.lax.rsqrt(moments.variance + BATCHNORM_EPSILON)[None, :]


@functools.partial(jax.jit, static_argnames="mesh")
def _evaluate(heads: Heads, x: jax.Array, *, mesh: Mesh) -> jax.Array:
  scores = _scores(heads.params, x if heads.moments is None else _normalize(x, heads.moments))
  return jax.lax.with_sharding_constraint(scores, placement.replicated(mesh))


@functools.partial(jax.jit, static_argnames=("update", "mesh"), donate_argnums=0)
def _scan_rows(heads: Heads, source, rows: jax.Array, *, update, mesh: Mesh):
  """Takes one step for each row of `rows`, i32[S, B], which holds row numbers of `source`."""

  def one(heads, batch):
    return jax.lax.with_sharding_constraint(
      update(heads, source[0][batch], source[1][batch]), placement.replicated(mesh)
    )

  return jax.lax.scan(one, heads, rows)


@functools.partial(jax.jit, static_argnames=("update", "mesh"), donate_argnums=0)
def _scan_batches(heads: Heads, batches, *, update, mesh: Mesh):
  """Takes one step for each of the S batches (f32[S, B, D], i32[S, B])."""

  def one(heads, batch):
    return jax.lax.with_sharding_constraint(update(heads, *batch), placement.replicated(mesh))

  return jax.lax.scan(one, heads, batches)


def _seed(key: jax.Array) -> int:
  return int(jax.random.bits(key, dtype=jnp.uint32))
