"""Learning along videos: the loop that the tasks on streams share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Augment, Key
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.stream_averages import Average, Averages, compile_averages
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.stream_rows import FrameRows
from ssl_jax.tasks.ttt import to_float_rows
from ssl_jax.tasks.video_streams import Learning, Read, Video, samples_at
from ssl_jax.ttt import class_balance
from ssl_jax.ttt.batched import OnRows
from ssl_jax.ttt.window import draw_rows

KINDS = ("adapted", "before", "frozen")  # whose predictions a frame has, in this order
VOTES = np.iinfo(np.int32).max  # folded into the key of the votes, a number that no frame has


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
  guard: Callable[..., tuple[Any, jax.Array]] | None  # see `class_balance.guard`; None: no guard
  average: Average | None
  read: Read
  # (Streams, samples on the devices, rows of `read`, logits of KINDS) -> {name: [S, ...] on the devices}
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
  averages: Averages,
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
  votes = jax.random.fold_in(key, VOTES)
  weights, first, key, votes = placement.replicate((weights, first, key, votes), mesh)
  guard = functools.partial(class_balance.guard, options.balance)
  predict = backbone.method.abilities[Adaptable].predict
  return Streams(
    options.carry,
    mesh,
    weights,
    first,
    key,
    predict=predict,
    online=program(online),
    offline=program(make_adapt(options._replace(steps=options.offline), backbone, augment))
    if options.offline
    else None,
    learning=learning,
    whole=learning._replace(steps=options.offline, everything=True),
    guard=OnRows(guard, (True,) * 5, mesh=mesh) if options.balance else None,
    average=compile_averages(averages, predict, weights, votes, mesh),
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
    options.rule(),
    steps=options.steps,
    copies=options.copies,
    micro_batches=options.micro_batches,
    draw=draw_rows,
  )


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
  longest = max(len(video.frames) for video in videos)
  streams = streams._replace(whole=streams.whole._replace(longest=longest))
  for start in range(0, len(videos), size):
    group = videos[start : start + size]
    longest = max(len(video.frames) for video in group)
    done = max(rows.done(video.number) for video in group)
    if done < longest:
      padded = [*group, *[group[-1]] * (size - len(group))]
      yield from _some_videos(streams, padded, len(group), rows, done)


class Carried(NamedTuple):
  """What streams carry from frame to frame; every leaf has an axis of streams."""

  trainable: Any
  mean: Any  # f32[S, H, W, C], of `Average`; None without it


class Pending(NamedTuple):
  """A moment of all streams whose results are still being computed."""

  moment: int
  positions: np.ndarray  # i32[S]
  frames: list[dict[str, np.ndarray]]  # the rows of `read`
  found: dict[str, jax.Array]  # of `judge`, and "reset" of the guard
  result: ttt.AdaptResult
  carried: Carried  # after the moment


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
    carried = place(_resumed(first, rows.stream))
  else:
    carried = Carried(_learn_offline(streams, videos, first, place), None)
  ahead: Pending | None = None
  rows.pause()
  for moment in range(done, max(len(video.frames) for video in videos[:real])):
    samples, positions = samples_at(streams.read, videos, moment, streams.learning)
    frames = streams.read(positions)
    carried, found, result = _one_moment(streams, first, carried, place((samples, positions)), frames)
    if ahead is not None:
      yield _add_rows(streams, videos[:real], rows, ahead)
    ahead = Pending(moment, positions, frames, found, result, carried)
  if ahead is not None:
    yield _add_rows(streams, videos[:real], rows, ahead)


def _resumed(first, leaves: list) -> Carried:
  """What streams carried when they were saved: a mean is the leaf beyond those of the parameters."""
  structure = jax.tree.structure(first)
  trainable = jax.tree.unflatten(structure, leaves[: structure.num_leaves])
  return Carried(trainable, *leaves[structure.num_leaves :] or [None])


def _one_moment(
  streams: Streams, first, carried: Carried, placed: tuple, frames
) -> tuple[Carried, dict[str, jax.Array], ttt.AdaptResult]:
  """Learns on the windows of a moment and predicts its frames.

  Args:
    placed: (samples, their positions) on the devices.
  """
  samples, positions = placed
  start = carried.trainable if streams.carry else first
  result, trainable = streams.online.respond(streams.weights, start, streams.key, samples, positions)
  frozen, adapted, mean = frozen_logits(streams, samples), result.logits, carried.mean
  if streams.average:
    adapted, mean = streams.average(trainable, adapted, samples, positions, mean)
  found = streams.judge(streams, samples, frames, (adapted, result.curve[:, 0], frozen))
  if streams.guard:
    sizes = samples["image_size"]
    trainable, found["reset"] = streams.guard(result.logits, frozen, sizes, trainable, first)
  return Carried(trainable, mean), found, result


def _add_rows(streams: Streams, videos: list[Video], rows: FrameRows, ahead: Pending) -> float:
  """Waits for a moment and adds its rows. Returns the mean loss of its last step, or 0 without steps."""
  found = jax.tree.map(placement.fetch, ahead.found)
  losses, diverged = placement.fetch(ahead.result.losses), placement.fetch(ahead.result.diverged)
  for i, video in enumerate(videos):
    if ahead.moment < len(video.frames):
      mine = {name: leaf[i] for name, leaf in found.items()}
      kept = {"reset": mine.pop("reset")} if streams.guard else {}
      row = {
        **kept,
        "video": video.number,
        "moment": ahead.moment,
        "index": ahead.positions[i],
        "loss": losses[i, -1] if losses.shape[1] else np.float32(np.nan),
        "diverged": diverged[i],
      }
      rows.add({**row, **streams.row(video, ahead.moment, ahead.frames[i], mine)})
  rows.stream = jax.tree.leaves(ahead.carried)
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
