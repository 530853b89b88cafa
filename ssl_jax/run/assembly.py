"""What a config names, built: shared by training, evaluation and planning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssl_jax import augment, methods, models, optim, parallel
from ssl_jax.config.checked import call_checked, options_of
from ssl_jax.config.schema import DataConfig, TrainConfig
from ssl_jax.core import Augment, DataSpec, Method, TrainState, make_init, make_train_step
from ssl_jax.data import sources, transforms


class Assembly(NamedTuple):
  """The parts of a run."""

  method: Method
  augment: Augment
  optimizer: optim.Optimizer
  batch: dict[str, jax.ShapeDtypeStruct]  # the global uint8 batch that the host delivers
  steps_per_epoch: int
  total_steps: int
  accumulate: int


def open_data(data: DataConfig):
  """The images that `data` names, decoded into memory if `cache` is set."""
  source = sources.open_source(data.name, split=data.split, data_dir=data.data_dir, image_size=data.size)
  return sources.cached(source) if data.cache else source


def host_transform(config: TrainConfig):
  """What the host does to an image: cut the views, or make one square that the device cuts views from."""
  size = config.data.size
  if config.data.crop == "device":
    return transforms.resize_center_crop(size, interpolation=config.data.interpolation)
  return transforms.random_resized_crop(
    size,
    scale=config.augment["scale"],
    views=config.augment["views"],
    interpolation=config.data.interpolation,
  )


def assemble(config: TrainConfig, data: DataSpec) -> Assembly:
  """Builds method, augmentation and optimiser.

  Raises: ValueError for every wrong option, before anything compiles.
  """
  if data.num_examples < config.batch_size:
    raise ValueError(
      f"config.batch_size {config.batch_size} is larger than the data set of {data.num_examples} "
      f"images; use at most {data.num_examples}"
    )
  steps_per_epoch = data.num_examples // config.batch_size
  total_steps = max(round(config.epochs * steps_per_epoch), 1)
  method = methods.make(
    config.method["name"],
    models.make(config.encoder["name"], **options_of(config.encoder)),
    data,
    **options_of(config.method),
  )
  cut = {"crop": False} if config.data.crop == "host" else {}
  augmentation = augment.make(config.augment["name"], **{**options_of(config.augment), **cut})
  optimizer = call_checked(
    functools.partial(
      optim.make_optimizer,
      total_steps=total_steps,
      steps_per_epoch=steps_per_epoch,
      batch_size=config.batch_size,
    ),
    config.optimizer,
    "config.optimizer",
  )
  return Assembly(
    method, augmentation, optimizer, _batch(config), steps_per_epoch, total_steps, config.accumulate
  )


def abstract_state(
  parts: Assembly, config: TrainConfig, mesh: Mesh
) -> tuple[TrainState, Callable[[], TrainState]]:
  """(The state as shapes with shardings, a function that makes the first one on the devices).

  Raises: ValueError if the method takes another number of views than config.augment makes.
  """
  init = make_init(parts.method, parts.augment, parts.optimizer.transform)
  key = jax.random.key(config.seed)
  try:
    shapes = jax.eval_shape(init, key, parts.batch)
  except KeyError as error:  # one view is batch["image"], several are batch["views"]
    wanted = {"image": "one view", "views": "two views"}.get(error.args[0])
    if wanted is None:
      raise
    raise ValueError(
      f"method {config.method['name']!r} takes {wanted} of an image, but config.augment.views is "
      f"{config.augment['views']}; use {1 if error.args[0] == 'image' else 2}"
    ) from None
  shardings = parallel.state_sharding(shapes, mesh, config.sharding)
  abstract = jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)

  def make(key) -> TrainState:
    return init(key, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), parts.batch))

  return abstract, lambda: jax.jit(make, out_shardings=shardings)(key)


def lower_train_step(parts: Assembly, abstract: TrainState, mesh: Mesh) -> jax.stages.Lowered:
  """The train step for a mesh, ready to be compiled."""
  step = make_train_step(parts.method, parts.augment, parts.optimizer.transform, accumulate=parts.accumulate)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  return parallel.compile_step(step, mesh, shardings).lower(abstract, parts.batch)


def compile_train_step(parts: Assembly, abstract: TrainState, mesh: Mesh) -> jax.stages.Compiled:
  """The train step as one compiled program: a batch of another shape is an error, never a second compile."""
  return lower_train_step(parts, abstract, mesh).compile()


def _batch(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
  size, views = config.data.size, config.augment["views"]
  image = (size, size, 3) if config.data.crop == "device" else (views, size, size, 3)
  return {
    "image": jax.ShapeDtypeStruct((config.batch_size, *image), jnp.uint8),
    "label": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
  }
