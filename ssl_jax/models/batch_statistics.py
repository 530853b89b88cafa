"""BatchNorm in evaluation mode with the statistics of the images at hand, mixed with those of training.

A function of a trained network, such as `Classifier.predict`, is given in; the network itself need not know
that it adapts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.core import PyTree
from ssl_jax.models.norm import BatchNorm

COLLECTION = "batch_stats"


def has_batch_norm(model_state: PyTree) -> bool:
  """Whether a model state holds statistics of BatchNorm."""
  return any(_is_statistic(path) for path, _ in jax.tree_util.tree_flatten_with_path(model_state)[0])


def with_batch_statistics(function: Callable, share: float, *, each: bool = False) -> Callable:
  """Returns `function`, in which BatchNorms in evaluation mode normalise with mixed statistics.

  The mean and the (biased) variance are `share` of those of the batch and 1 - `share` of the running ones.
  Gradients flow through those of the batch, as in training. A BatchNorm of vectors [B, D] keeps its running
  statistics, because one image has no variance there.

  Args:
    function: calls networks; what it calls must not be compiled already.
    share: in [0, 1]. 0: `function` itself; 1: as in training.
    each: every image has statistics of its own, over its pixels; otherwise they are those of the whole batch.
  Source: Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
    adaptation", section 3: with a prior of N images and n test images `share` is n / (N + n).
  """
  return _intercepted(function, functools.partial(_mix, share, each=each)) if share else function


def mixed_statistics(predict: Callable, share: float) -> Callable[..., PyTree]:
  """Returns (params, model_state, *inputs) -> the model state with the mixed statistics.

  They are those with which `with_batch_statistics` normalises: each layer's are measured behind layers that
  have mixed ones already. Statistics that `predict` does not use stay as they are.

  Args:
    predict: (params, model_state, *inputs) -> an array.
  Raises: ValueError, while tracing, if no BatchNorm of feature maps is used.
  """

  def mixed(params: PyTree, model_state: PyTree, *inputs) -> PyTree:
    def distance(statistics: PyTree) -> jax.Array:
      found: list[jax.Array] = []
      function = _intercepted(predict, functools.partial(_mix, share, each=False, distances=found))
      function(params, _merged(statistics, model_state), *inputs)
      if not found:
        raise ValueError(
          "no BatchNorm of feature maps is used, so there are no statistics to adapt; use objective='tent'"
        )
      return sum(found, jnp.zeros(()))

    statistics = jax.tree_util.tree_map_with_path(
      lambda path, leaf: leaf if _is_statistic(path) else None, model_state
    )
    # Only the caller of the network knows at which path of the model state a layer's statistics lie, so the
    # new ones are found as the minimum of their squared distance to the old ones.
    return _merged(jax.tree.map(jnp.subtract, statistics, jax.grad(distance)(statistics)), model_state)

  return mixed


def _mix(share: float, next_call, args, kwargs, context, *, each: bool, distances: list | None = None):
  """An interceptor of flax: gives a BatchNorm an input that it maps to what other statistics would give.

  Args:
    distances: if given, each layer appends half of the squared distance of its running statistics, a
      function of them, to the mixed ones, which are constant.
  """
  layer: Any = context.module
  if not isinstance(layer, BatchNorm) or context.method_name != "__call__" or layer.train:
    return next_call(*args, **kwargs)
  if args[0].ndim < 3:
    return next_call(*args, **kwargs)
  x = args[0].astype(jnp.float32)
  axes = tuple(range(int(each), x.ndim - 1))
  wide = (1,) * (x.ndim - 1)
  running = [layer.get_variable(COLLECTION, name).reshape(*wide, -1) for name in ("mean", "var")]
  old_mean, old_var = jax.lax.stop_gradient(running)
  mean = (1 - share) * old_mean + share * x.mean(axes, keepdims=True)
  var = (1 - share) * old_var + share * x.var(axes, keepdims=True)
  x = (x - mean) * jnp.sqrt((old_var + layer.epsilon) / (var + layer.epsilon)) + old_mean
  if distances is not None:
    for old, new in zip(running, jax.lax.stop_gradient((mean, var))):
      distances.append(0.5 * jnp.square(old - new).sum())
  return next_call(x, *args[1:], **kwargs)


def _intercepted(function: Callable, interceptor: Callable) -> Callable:
  def call(*args, **kwargs):
    with nn.intercept_methods(interceptor):
      return function(*args, **kwargs)

  return call


def _merged(statistics: PyTree, model_state: PyTree) -> PyTree:
  is_none = lambda leaf: leaf is None
  return jax.tree.map(lambda new, old: old if new is None else new, statistics, model_state, is_leaf=is_none)


def _is_statistic(path: tuple) -> bool:
  return any(getattr(key, "key", None) == COLLECTION for key in path)
