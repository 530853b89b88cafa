"""Builds the parts of a run from its config. Training, evaluation and planning share this code."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from ssl_jax import augment, methods, models, optim, parallel
from ssl_jax.augment.recipes import host_crop
from ssl_jax.config.checked import call_checked, options_of
from ssl_jax.config.schema import TrainConfig
from ssl_jax.core import Augment, DataSpec, Method, TrainState, make_init, make_train_step
from ssl_jax.data import host, sources
from ssl_jax.data.elements import Transform, check_elements
from ssl_jax.data.memory import Stored
from ssl_jax.data.reader import Source


class Assembly(NamedTuple):
  """The parts of a run."""

  method: Method
  host: Transform  # turns a record into arrays on the host
  augment: Augment
  optimizer: optim.Optimizer
  data: DataSpec  # includes the elements of `host`
  steps_per_epoch: int
  total_steps: int
  accumulate: int

  @property
  def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the global batch that the host delivers."""
    size = self.data.batch_size
    return {
      name: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype) for name, spec in self.data.elements.items()
    }


def open_data(config: TrainConfig, given: Any = None) -> tuple[Source, Transform]:
  """Opens the data set of `config.data` and makes the transform of `config.host`: (source, transform).

  If a folder does not have the split `config.data.split`, see `sources.open_split`. With `config.data.cache`
  the records are decoded into memory. If the transform is not random, its results are stored, unless the
  decoded images are smaller; otherwise the decoded images are, in their own size.

  Args:
    given: a data set that a program passes, see `data/python_data.py`; None: the one of `config.data`.
  Raises: ValueError for wrong options, data that does not exist, or records that lack what the transform
    needs.
  """
  data, transform = config.data, host_transform(config)
  source = sources.open_split(
    data.name, split=data.split, data_dir=data.data_dir, given=given, image_size=data.size, empty=data.empty
  )
  host.check_source(config.host["name"], transform, source)
  if "mask" in transform.elements:  # its classes are those of the pixels
    names = source.mask_classes
    source = dataclasses.replace(source, num_classes=len(names), class_names=names)
  if not data.cache:
    return source, transform
  if "clip" in source.fields and transform.random:
    raise ValueError(
      "config.data.cache is True, but whole clips are not kept in memory; use cache=False, or "
      "config.host.start='centre' to keep the same frames of each clip"
    )
  if not transform.random and _is_small(transform, source):
    return sources.cached(source, transform=transform), Stored(transform.elements)
  if data.device_cache:
    why = "its records are random" if transform.random else "the images grow when they are resized"
    raise ValueError(
      f"config.data.device_cache is True, but {why}, so that the host makes each batch; use "
      "device_cache=False, or crop='device' and a size up to that of the images"
    )
  return sources.cached(source), transform


def _is_small(transform: Transform, source: Source) -> bool:
  """Whether the results of a transform take no more memory than the decoded images.

  Images of different sizes cannot be held without it.
  """
  size = sum(spec.size_in_bytes for spec in transform.elements.values())
  return source.native_shape is None or size <= sources.native_bytes(source)


def host_transform(config: TrainConfig) -> Transform:
  """Makes the transform of `config.host`; either it cuts the views itself, or the device cuts them later.

  Raises: ValueError if the host is to cut views that it cannot cut as the augmentation defines them.
  """
  frame = host.Frame(config.data.size, config.data.interpolation)
  if config.data.crop == "host":
    name = config.augment["name"]
    defined = host_crop(name, config.augment)
    if config.data.interpolation != defined.method:
      raise ValueError(
        f"config.data.interpolation is {config.data.interpolation!r}, but the augmentation {name!r} resizes "
        f"its crops by {defined.method!r}, also where config.data.crop is 'host'; use "
        f"config.data.interpolation={defined.method!r}"
      )
    frame = frame._replace(
      views=config.augment["views"],
      scale=config.augment["scale"],
      sampler=defined.sampler,
      antialias=defined.antialias,
    )
  return host.make(config.host["name"], frame, **options_of(config.host))


def assemble(config: TrainConfig, data: DataSpec) -> Assembly:
  """Builds the method, host transform, augmentation and optimiser of a run.

  Args:
    data: its elements are replaced by those of the host transform.
  Raises: ValueError for a wrong option, before anything is compiled.
  """
  if data.num_examples < config.batch_size:
    raise ValueError(
      f"config.batch_size {config.batch_size} is larger than the data set of {data.num_examples} "
      f"images; use at most {data.num_examples}"
    )
  steps_per_epoch = data.num_examples // config.batch_size
  total_steps = max(round(config.epochs * steps_per_epoch), 1)
  if total_steps >= 2**31:
    raise ValueError(
      f"config.epochs is {config.epochs}: {total_steps:.3g} steps of {config.batch_size} images, and a run "
      "has less than 2^31"
    )
  transform = host_transform(config)
  data = data._replace(elements=check_elements(transform.elements), parts=config.accumulate)
  encoder = models.make(config.encoder["name"], **{**options_of(config.encoder), **groups_of_a_part(config)})
  method = methods.make(config.method["name"], encoder, data, **options_of(config.method))
  cut = {"crop": False} if config.data.crop == "host" else {}
  augmentation = augment.make(config.augment["name"], **{**options_of(config.augment), **cut})
  make_optimizer = functools.partial(
    optim.make_optimizer,
    total_steps=total_steps,
    steps_per_epoch=steps_per_epoch,
    batch_size=config.batch_size,
  )
  optimizer = call_checked(make_optimizer, config.optimizer, "config.optimizer")
  return Assembly(
    method, transform, augmentation, optimizer, data, steps_per_epoch, total_steps, config.accumulate
  )


def groups_of_a_part(config: TrainConfig) -> dict[str, int]:
  """Returns the option `batch_groups` of an encoder that sees one of `config.accumulate` parts of a batch.

  The option counts the BatchNorm groups of the whole batch. A part holds its share of them, so a group keeps
  its number of images.
  Returns: {} if BatchNorm has one group; its statistics are then those of a part.
  Raises: ValueError if a part holds no whole number of groups, or only one: methods that exchange images
    between groups need two, and for others one group of the batch computes the same.
  """
  groups, parts = config.encoder.get("batch_groups", 1), config.accumulate
  if groups == 1 or parts == 1:
    return {}
  if groups % parts or groups == parts:
    raise ValueError(
      f"config.encoder.batch_groups {groups} does not give each of config.accumulate {parts} parts of a batch"
      f" two or more whole BatchNorm groups; use batch_groups {2 * parts} or another multiple of {parts}, a"
      " smaller config.accumulate, or batch_groups 1 for the statistics of a whole part"
    )
  return {"batch_groups": groups // parts}


def abstract_state(
  parts: Assembly, config: TrainConfig, mesh: Mesh | AbstractMesh
) -> tuple[TrainState, Callable[[], TrainState]]:
  """Returns (the abstract state with shardings, a function that makes the initial state on the devices).

  Raises: ValueError if the method takes a different number of views than config.augment makes.
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
  except ZeroDivisionError as error:  # flax divides by the number of a layer's inputs or outputs
    raise ValueError(
      "a layer has no inputs or no outputs: a width or number in config.method or config.encoder is 0; use a "
      "positive one"
    ) from error
  shardings = parallel.state_sharding(shapes, mesh, config.sharding)
  abstract = jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, shardings)

  def make(key) -> TrainState:
    return init(key, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), parts.batch))

  return abstract, lambda: jax.jit(make, out_shardings=shardings)(key)


def lower_train_step(parts: Assembly, abstract: TrainState, mesh: Mesh) -> jax.stages.Lowered:
  """Lowers the train step for a mesh, ready to be compiled."""
  step = make_train_step(parts.method, parts.augment, parts.optimizer.transform, accumulate=parts.accumulate)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  return parallel.compile_step(step, mesh, shardings).lower(abstract, parts.batch)


def compile_train_step(parts: Assembly, abstract: TrainState, mesh: Mesh) -> jax.stages.Compiled:
  """Compiles the train step ahead of time: a batch of another shape is an error, not a recompilation."""
  return lower_train_step(parts, abstract, mesh).compile()
