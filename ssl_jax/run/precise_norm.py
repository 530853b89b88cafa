"""Estimates the statistics of BatchNorm anew, from training batches of the final network."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.core import DataSpec, PyTree, Weights
from ssl_jax.data import pipeline
from ssl_jax.models.norm import BatchNorm
from ssl_jax.parallel import placement
from ssl_jax.run.assembly import abstract_state, assemble, open_data
from ssl_jax.run.restore import Restored
from ssl_jax.tasks.backbone import Backbone


def precise_norm(run: Restored, mesh: Mesh, count: int, given: Any = None) -> Backbone:
  """The backbone of a run whose BatchNorm statistics are those of `count` training batches.

  A running average of few images, as in training detectors, is noisy and lags behind the weights. Here the
  mean is the average over the batches, and the variance that of all of them together. Frozen statistics stay.

  Args:
    count: number of batches of the training run, with its augmentation; they begin with the first of its
      shuffled order, and are the same for every number of devices and processes.
    given: the data that a program passed to the training run, see `open_data`.
  Raises: ValueError as the training run does for its data, and for a network with another momentum than the
    default of `BatchNorm`.
  Source: Wu & Johnson 2021, "Rethinking Batch in BatchNorm", section 3; MoCo's detectors take 200 batches.
  """
  config = run.config
  if config.method.get("norm_momentum", BatchNorm.momentum) != BatchNorm.momentum:
    raise ValueError(
      f"config.precise_batches is {count}, but the run was trained with config.method.norm_momentum="
      f"{config.method['norm_momentum']}; only {BatchNorm.momentum} is supported: use 0"
    )
  parallel.bound_programs()
  source, transform = open_data(config, given)
  parts = assemble(config, DataSpec(len(source), source.num_classes, config.batch_size))
  size = config.batch_size // config.accumulate  # what BatchNorm saw at once
  _, init = abstract_state(parts, config, mesh)
  extra = init().extra
  batches = pipeline.train_batches(
    source,
    batch_size=size,
    seed=config.seed,
    start=0,
    stop=count,
    transform=transform,
    workers=config.data.workers,
    positions=parallel.local_rows(mesh, size),
    max_bad_fraction=config.data.max_bad_fraction,
  )

  @jax.jit
  def measure(weights: Weights, extra: PyTree, batch, key) -> PyTree:
    augment_key, loss_key = jax.random.split(key)
    views = parts.augment(augment_key, batch)
    _, aux = parts.method.loss(weights.params, weights.model_state, extra, views, loss_key)
    return _moments(weights.model_state, aux.model_state)

  weights, total, number = Weights(*placement.replicate(tuple(run.backbone.weights), mesh)), None, 0
  key = jax.random.key(config.seed)
  with batches:
    for batch in batches:
      found = measure(weights, extra, parallel.to_devices(batch, mesh), jax.random.fold_in(key, number))
      total = found if total is None else jax.tree.map(jnp.add, total, found)
      number += 1
  if total is None:
    return run.backbone
  state = _statistics(jax.tree.map(lambda leaf: leaf / number, total), weights.model_state)
  protocol = {**run.backbone.protocol, "precise_batches": number}
  return run.backbone._replace(weights=weights._replace(model_state=state), protocol=protocol)


def _moments(old: PyTree, new: PyTree) -> PyTree:
  """The state with the mean of a batch in the place of "mean", and its mean square in that of "var"."""
  batch = jax.tree.map(functools.partial(_undo, momentum=BatchNorm.momentum), old, new)
  return _map_statistics(lambda mean, var: (mean, var + mean * mean), batch, batch)


def _undo(old: jax.Array, new: jax.Array, momentum: float) -> jax.Array:
  """What a running average took in."""
  if not jnp.issubdtype(new.dtype, jnp.floating):
    return new
  return (new - momentum * old) / (1 - momentum)


def _statistics(moments: PyTree, old: PyTree) -> PyTree:
  return _map_statistics(lambda mean, square: (mean, jnp.maximum(square - mean * mean, 0)), moments, old)


def _map_statistics(change, tree: PyTree, others: PyTree) -> PyTree:
  """The tree with (mean, var) of every BatchNorm changed, and all other leaves from `others`."""
  if not isinstance(tree, dict):
    return others
  if {"mean", "var"} == set(tree):
    mean, var = change(tree["mean"], tree["var"])
    return {"mean": mean, "var": var}
  return {name: _map_statistics(change, node, others[name]) for name, node in tree.items()}
