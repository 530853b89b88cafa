"""The picture `task`: the inputs that a pretext task makes of images, and their targets."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import cast

import jax
import numpy as np

from ssl_jax import methods
from ssl_jax.abilities import PretextExamples, PretextTask, Segmenter, SoundPredictor
from ssl_jax.config.schema import TrainConfig
from ssl_jax.core import Batch, DataSpec, Key, Method
from ssl_jax.data.elements import host_batch
from ssl_jax.run.assembly import assemble
from ssl_jax.view.columns import Column, plot_columns
from ssl_jax.view.request import PictureRequest, open_images


def show_pretext_task(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws augmented images or frames of a recipe and, beside each, the inputs that its method makes of it.

  Raises: methods.MissingAbility if the method has no pretext task; ValueError for an index out of range and
    for wrong options of the config.
  """
  config = cast(TrainConfig, request.config)
  source, transform = open_images(config, request.index, request.images)
  data = DataSpec(max(len(source), config.batch_size), max(source.num_classes, 2), config.batch_size)
  parts = assemble(config, data)
  make_task = _task_of(parts.method, config.method["name"])
  augment_key, task_key = jax.random.split(jax.random.key(request.seed))
  places = range(request.index, request.index + request.images)
  rngs = [np.random.default_rng((request.seed, i)) for i in places]
  batch = host_batch(transform, [source[i] for i in places], rngs)
  batch = jax.jit(parts.augment)(augment_key, batch)
  examples = make_task(task_key, batch)
  columns = [Column(name, examples.inputs[:, i]) for i, name in enumerate(examples.input_names)]
  title = f"Inputs of the pretext task of {config.method['name']}, {config.data.name} {config.data.split}"
  plot_columns(output, [_seen(batch), columns], title=title + _targets(examples))


def _seen(batch: Batch) -> list[Column]:
  """The columns that the task is made from: an image, or the frames of a clip."""
  if "clip" not in batch:
    return [Column("image", batch["image"])]
  return [Column(f"frame {i + 1}", batch["clip"][:, i]) for i in range(batch["clip"].shape[1])]


def _task_of(method: Method, name: str) -> Callable[[Key, Batch], PretextExamples]:
  """The function that makes the method's task of an augmented batch."""
  for kind in (SoundPredictor, Segmenter):
    if kind in method.abilities and method.abilities[kind].make_task:
      return method.abilities[kind].make_task
  task = methods.ability(
    method,
    PretextTask,
    owner=name,
    user="`ssl-jax show task`",
    cure="draw what this method sees with `ssl-jax show augmentations`",
  )
  return lambda key, batch: task.make_task(key, batch[task.element])


def _targets(examples: PretextExamples) -> str:
  """The targets of all images as the end of a title; "" if they are not described."""
  if not examples.question:
    return ""
  targets = np.asarray(examples.targets)
  same = (targets == targets[:1]).all()
  rows = "  ".join(" ".join(map(str, row)) for row in targets[: 1 if same else None])
  return f"; targets ({examples.question}), {'the same for all images' if same else 'row by row'}: {rows}"
