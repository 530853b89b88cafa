"""Checks the config of a run or of an evaluation without its data and its devices."""

from __future__ import annotations

from ssl_jax import parallel, tasks
from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.planning.data_size import data_of
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.evaluate import live_augment


def check_train(config: TrainConfig, devices: int) -> str:
  """Builds the parts of a run and traces its initial state; nothing is read or compiled.

  Args:
    devices: number of devices of the run; 0: those of this machine.
  Returns: a line that says what the run would do.
  Raises: ValueError for what `train` would refuse before it reads its data.
  """
  mesh = parallel.abstract_mesh(devices)
  parallel.check_batch(config.batch_size, mesh, config.accumulate)
  try:
    data, told = data_of(config), ""
  except ValueError:  # the size is known only where the data are
    data = data_of(config, images=max(config.batch_size, 10**6), classes=2)
    told = f"an unknown number of images of {config.data.name}"
  parts = assemble(config, data)
  abstract_state(parts, config, mesh)
  told = told or f"{data.num_examples:,} images of {config.data.name}, {parts.total_steps:,} steps"
  name = f"{config.method['name']}, {config.encoder['name']}"
  return f"{name}: batch {config.batch_size} on {mesh.size} devices, {told}"


def check_evaluate(config: EvaluateConfig, devices: int) -> str:
  """Makes the tasks of an evaluation.

  Args and returns: see `check_train`.
  Raises: ValueError for what `evaluate` would refuse before it restores the network.
  """
  for name, options in config.tasks.items():
    tasks.make(**{"task": name, **options})
  mesh = parallel.abstract_mesh(devices)
  parallel.check_batch(config.batch_size, mesh)
  live_augment(config, config.data.size or 32)
  return f"{', '.join(config.tasks)}: batch {config.batch_size} on {mesh.size} devices"
