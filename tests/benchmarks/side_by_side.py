"""Shared by benchmarks: our training step as a function, timing of functions in turn, the hardware used."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from ssl_jax import methods, optim
from ssl_jax.core import Augment, DataSpec, TrainState, make_init, make_train_step


class Lowered(NamedTuple):
  """A training step that is lowered but not compiled."""

  step: jax.stages.Lowered  # (state, batch) -> (state, metrics); the state is donated
  init: Callable[[], TrainState]
  batch: dict
  parameters: int


def lower_step(
  name: str,
  encoder,
  batch: dict,
  *,
  optimizer: dict,
  classes: int = 10,
  augment: Augment | None = None,
  **options,
) -> Lowered:
  """Lowers the method's step on the batch, which is augmented already unless an augmentation is given."""
  method = methods.make(name, encoder, DataSpec(50_000, classes, len(next(iter(batch.values())))), **options)
  rule = optim.make_optimizer(total_steps=100, steps_per_epoch=10, batch_size=256, **optimizer)
  parts = (method, augment or (lambda key, batch: batch), rule.transform)
  init, batch = jax.jit(make_init(*parts)), jax.device_put(batch)
  state = jax.eval_shape(init, jax.random.key(0), batch)
  step = jax.jit(make_train_step(*parts), donate_argnums=0).lower(state, batch)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return Lowered(step, lambda: init(jax.random.key(0), batch), batch, parameters)


def train_step(name: str, encoder, batch: dict, *, optimizer: dict, **options):
  """Returns (() -> loss of one more step of the method on the augmented batch, number of parameters)."""
  lowered = lower_step(name, encoder, batch, optimizer=optimizer, **options)
  step, state = lowered.step.compile(), lowered.init()

  def once() -> float:
    nonlocal state
    state, metrics = step(state, lowered.batch)
    return float(metrics["loss"].value())

  return once, lowered.parameters


def fastest(functions: dict, rounds: int) -> dict[str, float]:
  """Returns the least seconds of each function over `rounds`, called in turn for equal conditions."""
  for function in functions.values():
    function(), function()
  seconds = {name: [] for name in functions}
  for _ in range(rounds):
    for name, function in functions.items():
      began = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - began)
  return {name: min(values) for name, values in seconds.items()}


def peers_device():
  """Makes the device that JAX uses PyTorch's default device, with TF32 for float32 as in JAX; returns it."""
  import torch

  device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.set_default_device(device)
  return device


def machine(*packages: str) -> dict:
  """Returns the hardware and the package versions, which are part of every benchmark's result."""
  return {
    "machine": platform.processor() or platform.machine(),
    "cores": os.cpu_count(),
    "device": jax.devices()[0].device_kind,
    "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy", *packages)},
  }
