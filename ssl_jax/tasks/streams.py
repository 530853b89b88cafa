"""Learning along videos: the loop that the tasks on streams share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Augment, Key
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.stream_rows import FrameRows
from ssl_jax.tasks.ttt import make_rule, to_float_rows
from ssl_jax.tasks.video_streams import Learning, Read, Video, samples_at
from ssl_jax.ttt.window import draw_rows


class Options(NamedTuple):
  """How a network learns along a video; see `ttt_video.make`."""

  objective: ttt.Objective
  carry: bool
  window: int
  steps: int
  copies: int
  learning_rate: float
  encoder_rate: float
  optimizer: Literal["sgd", "nesterov", "adamw"]
  momentum: float
  weight_decay: float
  clip_norm: float
  trainable: tuple[str, ...]
  offline: int
  order: str
  micro_batches: int
  together: int

  def check(self, task: str) -> Options:
    """Returns itself. Raises ValueError for values out of range."""
    for name in ("window", "offline", "together"):
      if getattr(self, name) < 0:
        raise ValueError(f"config.tasks.{task}.{name} is {getattr(self, name)}; use 0 or more")
    for name in ("learning_rate", "encoder_rate"):
      if getattr(self, name) <= 0:
        raise ValueError(f"config.tasks.{task}.{name} is {getattr(self, name)}; use a positive number")
    if self.offline and (self.steps or not self.carry):
      raise ValueError(
        f"config.tasks.{task}.offline is {self.offline}, which learns before the first frame; use steps=0 "
        f"(is {self.steps}) and carry=True (is {self.carry})"
      )
    return self

  def learner(self, backbone: Backbone, task: str, cure: str) -> Backbone:
    """The backbone whose ability Adaptable is the objective.

    A network without a task of its own, and without steps, gets one that it never learns.
    Raises: methods.MissingAbility or ValueError if it has nothing to learn.
    """
    objective = self.objective
    if objective == "own" and not (self.steps or self.offline or Adaptable in backbone.method.abilities):
      objective = "memo"
    backbone = ttt.with_objective(backbone, objective)
    backbone.ability(Adaptable, f"task {task!r}", cure)
    return backbone

  def learning(self, seed: int) -> Learning:
    """What the network learns from at each frame."""
    return Learning(self.window, self.steps, self.copies, seed)


class Streams(NamedTuple):
  """Everything that the streams of a run share."""

  carry: bool
  mesh: Mesh
  weights: Any  # replicated
  first: Any  # the trained values of the parameters that adapt
  key: Key
  predict: Callable[..., jax.Array]  # of the ability Adaptable
  online: ttt.Program
  offline: ttt.Program | None
  learning: Learning
  whole: Learning  # of the steps before the first frame
  read: Read
  # (Streams, samples on the devices, rows of `read`, AdaptResult) -> {name: [S, ...] on the devices}
  judge: Callable[..., dict[str, jax.Array]]
  # (video, moment, row of `read`, {name: what `judge` found}) -> the row to keep
  row: Callable[..., dict[str, Any]]


def seed_of(key: Key) -> int:
  """The seed of what is drawn on the host."""
  return int(np.asarray(jax.random.key_data(key)).ravel()[-1])


def prepare(
  options: Options,
  backbone: Backbone,
  augment: Augment | None,
  mesh: Mesh,
  key: Key,
  *,
  read: Read,
  judge: Callable[..., dict[str, jax.Array]],
  row: Callable[..., dict[str, Any]],
) -> Streams:
  """Makes the programs; they are compiled at the first frame.

  Args:
    backbone: of `Options.learner`.
  """
  weights, first = ttt.initial_params(backbone, options.trainable)
  online = make_adapt(options, backbone, augment)
  together = options.together or ttt.images_at_once(online, first)
  program = functools.partial(ttt.compile_adapt, mesh=mesh, together=together, carried=True)
  learning = options.learning(seed_of(key))
  weights, first, key = placement.replicate((weights, first, key), mesh)
  return Streams(
    options.carry,
    mesh,
    weights,
    first,
    key,
    predict=backbone.method.abilities[Adaptable].predict,
    online=program(online),
    offline=program(make_adapt(options._replace(steps=options.offline), backbone, augment))
    if options.offline
    else None,
    learning=learning,
    whole=learning._replace(steps=options.offline, everything=True),
    read=read,
    judge=judge,
    row=row,
  )


def make_adapt(options: Options, backbone: Backbone, augment: Augment | None) -> ttt.Adapt:
  """Returns the inner loop at a frame.

  Args:
    backbone: of `Options.learner`.
  """
  return ttt.make_adapt(
    backbone.method.abilities[Adaptable],
    augment or to_float_rows,
    _rule(options),
    steps=options.steps,
    copies=options.copies,
    micro_batches=options.micro_batches,
    draw=draw_rows,
  )


def _rule(options: Options) -> optax.GradientTransformation:
  """The optimiser, in which the encoder has a learning rate of its own."""
  rule = make_rule(
    options.optimizer,
    learning_rate=options.learning_rate,
    momentum=options.momentum,
    weight_decay=options.weight_decay,
    weight_decay_on="weights",
    clip_norm=options.clip_norm,
  )

  def scale(path, leaf):
    return leaf * options.encoder_rate if path[0].key == "encoder" else leaf

  slower = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))
  return optax.chain(rule, slower)


def follow(streams: Streams, videos: list[Video], rows: FrameRows, progress: Callable) -> None:
  """Learns along all videos, as many at once as the program takes, and adds a row for each frame.

  Raises: Stopped on a stop request, after it has saved what there is.
  """
  total = sum(len(video.frames) for video in videos)
  with Stop() as stop:
    for loss in _all_videos(streams, videos, rows):
      progress(rows.count(), total, loss)
      stopped = stop.poll()
      rows.save(now=bool(stopped))
      if stopped:
        raise Stopped(
          f"stopped by {stopped} after {rows.count()} of {total} frames; run the same command again to resume"
        )


def _all_videos(streams: Streams, videos: list[Video], rows: FrameRows) -> Iterator[float]:
  """Yields the loss of each moment."""
  size = streams.online.size
  for start in range(0, len(videos), size):
    group = videos[start : start + size]
    longest = max(len(video.frames) for video in group)
    done = max(rows.done(video.number) for video in group)
    if done < longest:
      padded = [*group, *[group[-1]] * (size - len(group))]
      yield from _some_videos(streams, padded, len(group), rows, done)


class Pending(NamedTuple):
  """A moment of all streams whose results are still being computed."""

  moment: int
  positions: np.ndarray  # i32[S]
  frames: list[dict[str, np.ndarray]]  # the rows of `read`
  found: dict[str, jax.Array]  # of `judge`
  result: ttt.AdaptResult
  trainable: Any  # after the moment


def _some_videos(
  streams: Streams, videos: list[Video], real: int, rows: FrameRows, done: int
) -> Iterator[float]:
  """Goes on with videos from moment `done`; the last ones, beyond `real`, only fill the program.

  The devices are a moment ahead of the rows.
  """
  place = functools.partial(jax.tree.map, lambda leaf: placement.spread(np.asarray(leaf), streams.mesh))
  stack = lambda leaf: np.stack([placement.fetch(leaf)] * len(videos))
  first = place(jax.tree.map(stack, streams.first))
  if done:
    current = place(jax.tree.unflatten(jax.tree.structure(first), rows.stream))
  else:
    current = _learn_offline(streams, videos, first, place)
  ahead: Pending | None = None
  rows.pause()
  for moment in range(done, max(len(video.frames) for video in videos[:real])):
    samples, positions = samples_at(streams.read, videos, moment, streams.learning)
    placed = place((samples, positions))
    start = current if streams.carry else first
    result, current = streams.online.respond(streams.weights, start, streams.key, *placed)
    frames = streams.read(positions)
    found = streams.judge(streams, placed[0], frames, result)
    if ahead is not None:
      yield _add_rows(streams, videos[:real], rows, ahead)
    ahead = Pending(moment, positions, frames, found, result, current)
  if ahead is not None:
    yield _add_rows(streams, videos[:real], rows, ahead)


def _add_rows(streams: Streams, videos: list[Video], rows: FrameRows, ahead: Pending) -> float:
  """Waits for a moment and adds its rows. Returns the mean loss of its last step, or 0 without steps."""
  found = jax.tree.map(placement.fetch, ahead.found)
  losses, diverged = placement.fetch(ahead.result.losses), placement.fetch(ahead.result.diverged)
  for i, video in enumerate(videos):
    if ahead.moment < len(video.frames):
      mine = {name: leaf[i] for name, leaf in found.items()}
      row = {
        "video": video.number,
        "moment": ahead.moment,
        "index": ahead.positions[i],
        "loss": losses[i, -1] if losses.shape[1] else np.float32(np.nan),
        "diverged": diverged[i],
      }
      rows.add({**row, **streams.row(video, ahead.moment, ahead.frames[i], mine)})
  rows.stream = jax.tree.leaves(ahead.trainable)
  rows.lap(len(videos))
  return float(losses[: len(videos), -1].mean()) if losses.shape[1] else 0.0


def _learn_offline(streams: Streams, videos: list[Video], first, place):
  """The parameters with which the videos begin: those that were trained, or that learned on whole videos."""
  if streams.offline is None:
    return first
  placed = place(samples_at(streams.read, videos, 0, streams.whole))
  return streams.offline.respond(streams.weights, first, streams.key, *placed)[1]


def frozen_logits(streams: Streams, samples) -> jax.Array:
  """The logits of the trained network for the frames of samples on the devices."""
  batch = {name: samples[name] for name in ("image", "image_size")}
  return _logits(streams.weights, streams.first, batch, predict=streams.predict)


@functools.partial(jax.jit, static_argnames="predict")
def _logits(weights, first, batch, *, predict) -> jax.Array:
  floats = {name: to_float(leaf) for name, leaf in batch.items()}
  return predict(ttt.merge_params(first, weights.params), weights.model_state, floats)
