"""Optimisers and learning rate schedules as published, composed of optax transformations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.models import depths


class Optimizer(NamedTuple):
  """The optimiser of a run and its learning rate schedule."""

  transform: optax.GradientTransformation
  schedule: optax.Schedule  # step -> learning rate; for the log, `transform` already applies it


def make_optimizer(
  *,
  total_steps: int,
  steps_per_epoch: int,
  batch_size: int,
  name: Literal["sgd", "nesterov", "lars", "adamw"] = "sgd",
  learning_rate: float,
  scaling: Literal["none", "linear", "sqrt"] = "none",
  schedule: Literal["constant", "cosine", "cosine_by_epoch", "step", "poly"] = "cosine",
  warmup_epochs: float = 0.0,
  warmup_from: float = 0.0,
  milestones: tuple[float, ...] = (),
  decay: float = 0.1,
  power: float = 1.0,
  final_learning_rate: float = 0.0,
  layer_decay: float = 1.0,
  momentum: float = 0.9,
  beta2: float = 0.999,
  weight_decay: float = 0.0,
  weight_decay_on: Literal["all", "no_norms", "matrices", "weights"] = "all",
  clip_norm: float = 0.0,
) -> Optimizer:
  """Builds the optimiser of a run.

  Args:
    total_steps, steps_per_epoch, batch_size: of the run. An epoch drops its incomplete batch, also in the
      schedule. SimCLR's released code does not: its cosine is longer by 0.25% on ImageNet with batches of
      4096 and by 1.7% on CIFAR-10 with batches of 1024, see configs/pretrain/simclr.py.
    name: "sgd" and "nesterov" as in PyTorch; "lars" as in SimCLR (learning rate inside the momentum, trust
      coefficient 0.001, vectors have neither trust ratio nor weight decay, every layer of a stack has its own
      trust ratio); "adamw" with decoupled weight decay.
    learning_rate: before `scaling`.
    scaling: multiplies the learning rate by batch_size / 256 ("linear") or sqrt(batch_size) ("sqrt").
    schedule: "constant"; "cosine": per step, down to `final_learning_rate`; "cosine_by_epoch": the same, but
      constant within an epoch (MoCo v2); "step": multiplied by `decay` at each epoch of `milestones`;
      "poly": down to `final_learning_rate` as (1 - step / total_steps)^`power` (segmentation, DeepLab).
    warmup_epochs: linear growth before the schedule begins. The polynomial begins at step 0 all the same, and
      the warm-up multiplies it, as in MMSegmentation 0.x, with which BEiT and MAE were fine-tuned: at half of
      the steps it is at half of the peak if `power` is 1. (Version 1.x begins it after the warm-up.)
    warmup_from: the fraction of the learning rate at which the warm-up begins.
    milestones: increasing epochs, for "step". They may be fractions: iteration n is n / steps_per_epoch.
    final_learning_rate: not scaled.
    layer_decay: factor in (0, 1] that multiplies the updates, including weight decay, once for each step of
      depth between a layer and the head; 1 treats all layers alike. See `depths.depths`.
    momentum, beta2: of the optimiser; `momentum` is beta1 of "adamw".
    weight_decay_on: the leaves with weight decay: "all"; "no_norms": all but the scales and biases of norms,
      as in detectron2; "matrices": all but biases and the scales of norms;
      "weights": matrices without tokens and positions, as in timm and in MAE's fine-tuning.
    clip_norm: maximum global norm of the gradient; 0 does not clip.
  Raises: ValueError for a value out of range.
  Source: Goyal et al. 2017 (SGD), You et al. 2017 (LARS), Chen et al. 2020 (both scaling rules).
  """
  for option, value in dict(locals()).items():
    if isinstance(value, float) and math.isinf(value):
      raise ValueError(f"config.optimizer.{option} is {value}; use a finite number")
  if learning_rate <= 0:
    raise ValueError(f"config.optimizer.learning_rate is {learning_rate}; use a positive value")
  if list(milestones) != sorted(set(milestones)):
    raise ValueError(
      f"config.optimizer.milestones {milestones} do not increase; list the epochs in increasing order"
    )
  warmup_steps = round(warmup_epochs * steps_per_epoch)
  if warmup_steps and warmup_steps >= total_steps:
    raise ValueError(
      f"config.optimizer.warmup_epochs {warmup_epochs} is {warmup_steps} steps, but the run has only "
      f"{total_steps}; warm up for less than {total_steps / steps_per_epoch:g} epochs"
    )
  if not 0 < layer_decay <= 1:
    raise ValueError(f"config.optimizer.layer_decay is {layer_decay}; use a fraction in (0, 1], such as 0.75")
  if power <= 0:
    raise ValueError(f"config.optimizer.power is {power}; use a positive exponent, such as 1.0 or 0.9")
  if not 0 <= warmup_from <= 1:
    raise ValueError(f"config.optimizer.warmup_from is {warmup_from}; use a fraction in [0, 1], such as 1e-6")
  peak = learning_rate * {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}[scaling]
  if schedule == "poly":
    rate = _warmed_polynomial(peak, final_learning_rate, power, total_steps, warmup_steps, warmup_from)
  else:
    rate = _schedule(
      schedule, peak, final_learning_rate, total_steps, steps_per_epoch, warmup_steps, milestones, decay
    )
    rate = _after_warmup(rate, warmup_from * peak, peak, warmup_steps)
  mask = {"all": None, "no_norms": _outside_norms, "matrices": _matrices, "weights": _weights}[
    weight_decay_on
  ]
  decayed = optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity()
  if name == "lars":
    rule = _lars(rate, weight_decay, momentum)
  elif name == "adamw":
    rule = optax.adamw(rate, b1=momentum, b2=beta2, weight_decay=weight_decay, mask=mask)
  else:
    rule = optax.chain(decayed, optax.sgd(rate, momentum or None, nesterov=name == "nesterov"))
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  layers = _scale_by_depth(layer_decay) if layer_decay != 1 else optax.identity()
  return Optimizer(_promoting(optax.chain(clip, rule, layers)), rate)


def _lars(rate: optax.Schedule, weight_decay: float, momentum: float) -> optax.GradientTransformation:
  """`optax.lars`, in which every layer of a stack has its own trust ratio, as if the layers were not
  stacked.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, _matrices),
    optax.masked(_scale_by_trust_ratio(0.001), _matrices),
    optax.scale_by_learning_rate(rate),
    optax.trace(momentum),
  )


def _scale_by_trust_ratio(coefficient: float) -> optax.GradientTransformation:
  """`optax.scale_by_trust_ratio` for each leaf, and for each layer of a leaf that stacks layers."""
  rule = optax.scale_by_trust_ratio(trust_coefficient=coefficient)

  def update(updates, state, params=None):
    one_layer = lambda update, param: rule.update(update, state, param)[0]
    scaled = jax.tree_util.tree_map_with_path(
      lambda path, *leaves: (jax.vmap(one_layer) if depths.is_stack(path) else one_layer)(*leaves),
      updates,
      params,
    )
    return scaled, state

  return optax.GradientTransformation(rule.init, update)


def _matrices(params, besides: tuple[str, ...] = ()):
  """True for leaves with two or more axes whose names are not in `vectors`.

  The names are needed because biases and scales of stacked layers have two axes too.
  """
  vectors = ("bias", "scale", *besides)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf.ndim > 1 and not (path and getattr(path[-1], "key", "") in vectors), params
  )


def _outside_norms(params):
  """False for the leaves of layers that have a scale, which are norms."""
  inner = lambda node: isinstance(node, Mapping) and not any(isinstance(v, Mapping) for v in node.values())
  of_layer = lambda layer: {name: "scale" not in layer for name in layer} if inner(layer) else True
  return jax.tree.map(of_layer, params, is_leaf=inner)


def _weights(params):
  return _matrices(params, ("cls", "mask", "positions", *depths.RELATIVE))


def _scale_by_depth(decay: float) -> optax.GradientTransformation:
  """Multiplies updates by decay^(depth of the head - depth of the leaf)."""

  def update(updates, params=None):
    found, last = depths.depths(updates)
    return jax.tree.map(lambda u, depth: u * jnp.asarray(decay ** (last - depth), u.dtype), updates, found)

  return optax.stateless(update)


def _promoting(rule: optax.GradientTransformation) -> optax.GradientTransformation:
  """The rule with standard dtype promotion: optax's bias correction in Adam mixes an integer with floats."""

  def update(updates, state, params=None):
    with jax.numpy_dtype_promotion("standard"):
      return rule.update(updates, state, params)

  return optax.GradientTransformation(rule.init, update)


def _schedule(
  kind, peak, final, total_steps, steps_per_epoch, warmup_steps, milestones, decay
) -> optax.Schedule:
  after = max(total_steps - warmup_steps, 1)

  def main(step):  # the number of steps since the end of the warm-up
    if kind == "cosine_by_epoch":
      step = step // steps_per_epoch * steps_per_epoch
    if kind in ("cosine", "cosine_by_epoch"):
      return final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / after, 1.0)))
    passed = sum(jnp.where(step + warmup_steps >= round(m * steps_per_epoch), 1.0, 0.0) for m in milestones)
    return peak * jnp.power(decay, passed) if milestones and kind == "step" else jnp.full((), peak)

  return main


def _after_warmup(main: optax.Schedule, first, peak, warmup_steps) -> optax.Schedule:
  if not warmup_steps:
    return main
  return optax.join_schedules([optax.linear_schedule(first, peak, warmup_steps), main], [warmup_steps])


def _warmed_polynomial(peak, final, power, total_steps, warmup_steps, warmup_from) -> optax.Schedule:
  polynomial = optax.polynomial_schedule(peak, final, power, total_steps)
  grown = lambda step: jnp.minimum(step / warmup_steps, 1.0) if warmup_steps else 1.0
  return lambda step: polynomial(step) * (warmup_from + (1 - warmup_from) * grown(step))
