"""The programs of an evaluation: passing images through the network, and learning at test time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ssl_jax import ttt
from ssl_jax.abilities import Adaptable, Segmenter
from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.core import DataSpec, Weights
from ssl_jax.parallel.placement import replicated
from ssl_jax.planning.work import Work, bytes_per_chip, rows_of
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.evaluate import live_augment
from ssl_jax.tasks import deployment, features, streams
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.segmentation import padded_canvas
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.ttt import Settings, make_adapt, with_objective
from ssl_jax.ttt.batched import OnRows

# (Height, width) in pixels of the frames of video sets that are planned without being present.
FRAMES = {
  "kitti_step": (375, 1242),
  "cityscapes_vps": (1024, 2048),
  "davis": (480, 854),
  "youtube_vos": (720, 1280),
}

Network = Callable[[Mesh], Backbone]
Rows = dict[str, tuple[tuple[int, ...], Any]]  # (shape, dtype) by name


def evaluating(
  config: TrainConfig, data: DataSpec, evaluation: EvaluateConfig, mesh: Mesh, platform: str
) -> dict[str, Work]:
  """Work by task name.

  For a task of test-time training it is the adaptation to test images, or to a frame of each stream, or a
  step of a policy in each episode; for any other task the forward pass over a batch, which takes most of its
  time.
  """
  parts = assemble(config, data)
  size = evaluation.data.size or config.augment["size"]

  def backbone(mesh: Mesh) -> Backbone:
    state = abstract_state(parts, dataclasses.replace(config, sharding="replicate"), mesh)[0]
    return Backbone(
      Weights(state.params, state.model_state), parts.method, {"backbone": config.method["name"]}
    )

  found = {}
  for name, options in evaluation.tasks.items():
    task = options.get("task", name)
    if task == "ttt":
      learner = _of_images(backbone, evaluation, options, size, mesh)
      found[name] = _adapting(learner, options["together"], mesh, platform)
    elif task == "ttt_video":
      learner = _of_frames(backbone, config, evaluation, options, size, mesh)
      found[name] = _adapting(learner, options["together"], mesh, platform)
    elif task == "deployment":
      found[name] = _acting(backbone, evaluation, options, size, mesh, platform)
    else:
      found[name] = _passing(backbone, evaluation.batch_size, size, mesh)
  return found


def _passing(backbone: Network, count: int, size: int, mesh: Mesh) -> Work:
  rows: Rows = {
    "image": ((count, size, size, 3), jnp.uint8),
    "label": ((count,), jnp.int32),
    "index": ((count,), jnp.int32),
    "valid": ((count,), bool),
  }

  def lower(mesh: Mesh) -> jax.stages.Lowered:
    network = backbone(mesh)
    return features.encode_rows.lower(
      *network.weights,
      {name: rows_of(*leaf, mesh=mesh) for name, leaf in rows.items()},
      function=network.method.encode,
      mesh=mesh,
    )

  return Work(lower, lambda mesh: count, {"parameters": bytes_per_chip(backbone(mesh).weights)})


class Learner(NamedTuple):
  """A network that learns at test time."""

  network: Network
  adapt: ttt.Adapt
  trainable: tuple[str, ...]
  carried: bool
  sample: Rows  # the arrays of one sample


def _of_images(
  backbone: Network, evaluation: EvaluateConfig, options: dict, size: int, mesh: Mesh
) -> Learner:
  settings = Settings(**{name: options[name] for name in Settings._fields})

  def network(mesh: Mesh) -> Backbone:
    return with_objective(settings, backbone(mesh))

  adapt = make_adapt(settings, network(mesh).ability(Adaptable, "task 'ttt'"), live_augment(evaluation, size))
  sample: Rows = {"image": ((size, size, 3), jnp.uint8)}
  return Learner(network, adapt, tuple(settings.trainable), settings.mode == "online", sample)


def _of_frames(
  backbone: Network, config: TrainConfig, evaluation: EvaluateConfig, options: dict, size: int, mesh: Mesh
) -> Learner:
  """The learner of a stream, whose sample is a frame with those of its window."""
  settings = Options(**{name: options[name] for name in Options._fields})
  segmenter = backbone(mesh).ability(Segmenter, "task 'ttt_video'")

  def network(mesh: Mesh) -> Backbone:
    return settings.learner(backbone(mesh), "ttt_video", "train a 'joint_segmentation'")

  adapt = streams.make_adapt(settings, network(mesh), live_augment(evaluation, size))
  shown = frame_size(config, evaluation, options["short_side"], size)
  canvas = segmenter.size or padded_canvas(shown, segmenter.divisor)
  count = max(settings.learning(0).width(), 1)
  sample: Rows = {
    "image": ((*canvas, 3), jnp.uint8),
    "image_size": ((2,), jnp.int32),
    "frames": ((count, *canvas, 3), jnp.uint8),
    "frames_size": ((count, 2), jnp.int32),
    "rows": ((settings.steps, settings.copies), jnp.int32),
  }
  return Learner(network, adapt, tuple(settings.trainable), True, sample)


def _acting(
  backbone: Network, evaluation: EvaluateConfig, options: dict, size: int, mesh: Mesh, platform: str
) -> Work:
  """A policy learns from a transition and acts, in several episodes at once."""
  settings = deployment.Options(**{name: options[name] for name in deployment.Options._fields})
  augment = live_augment(evaluation, size)
  adapt, episode, actor = deployment.make_learner(settings, backbone(mesh), augment)
  _, trainable = ttt.initial_params(backbone(mesh), settings.trainable)
  together = settings.together or ttt.images_at_once(adapt, trainable, platform)
  clip = (actor.frames + 1, actor.size, actor.size, 3)
  sample: Rows = {"clip": (clip, jnp.uint8), "action": ((actor.actions,), jnp.float32)}

  def lower(mesh: Mesh) -> jax.stages.Lowered:
    rows = lambda leaf: rows_of((together * mesh.size, *leaf.shape), leaf.dtype, mesh)
    weights, first = ttt.initial_params(backbone(mesh), settings.trainable)
    one = {name: jax.ShapeDtypeStruct(*spec) for name, spec in sample.items()}
    number, key = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    state, _ = jax.eval_shape(episode.begin, weights, first, key, one, number)
    state, samples, numbers = jax.tree.map(rows, (state, one, number))
    program = OnRows(episode.respond, (False, True, True, True), mesh=mesh)
    return program.lower(weights, state, samples, numbers)

  held = {
    "parameters": bytes_per_chip(backbone(mesh).weights),
    "trainable": bytes_per_chip(trainable) * together,
  }
  return Work(lower, lambda mesh: together * mesh.size, held)


def frame_size(
  config: TrainConfig, evaluation: EvaluateConfig, short_side: int, size: int
) -> tuple[int, int]:
  """(Height, width) in pixels of the frames: those of a known data set, else of the training's host
  transform, else squares of `size`; then resized to `short_side`.
  """
  host = config.host
  known = FRAMES.get(evaluation.data.name)
  height, width = known or (host.get("height", 0) or size, host.get("width", 0) or size)
  if not short_side:
    return height, width
  factor = short_side / min(height, width)
  return round(height * factor), round(width * factor)


def _adapting(learner: Learner, together: int, mesh: Mesh, platform: str) -> Work:
  network = learner.network(mesh)
  _, trainable = ttt.initial_params(network, learner.trainable)
  together = together or ttt.images_at_once(learner.adapt, trainable, platform)

  def lower(mesh: Mesh) -> jax.stages.Lowered:
    count = together * mesh.size
    weights, trainable = ttt.initial_params(learner.network(mesh), learner.trainable)
    if learner.carried:
      trainable = jax.tree.map(lambda leaf: rows_of((count, *leaf.shape), leaf.dtype, mesh), trainable)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
    samples = {name: rows_of((count, *shape), dtype, mesh) for name, (shape, dtype) in learner.sample.items()}
    program = ttt.compile_adapt(
      learner.adapt, mesh, together=together, carried=learner.carried, loop="program"
    )
    return program.respond.lower(weights, trainable, key, samples, rows_of((count,), jnp.int32, mesh))

  return Work(
    lower,
    lambda mesh: together * mesh.size,
    {
      "parameters": bytes_per_chip(network.weights),
      "trainable": bytes_per_chip(trainable) * (together if learner.carried else 1),
    },
  )
