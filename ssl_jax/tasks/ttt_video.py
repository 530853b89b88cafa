"""Test-time training on video streams: a segmenter that goes on learning along each test video."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import parallel, ttt
from ssl_jax.abilities import Adaptable, Segmenter
from ssl_jax.core import Augment, Key
from ssl_jax.data.full_mask import ImageAndFullMask
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks import stream_scores
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.partial_results import NOTHING_KEPT, PartialResults
from ssl_jax.tasks.segmentation import Numbers, canvases, check_classes, find_numbers
from ssl_jax.tasks.segmented_batches import count_classes
from ssl_jax.tasks.sliding_windows import Totals, classes_of
from ssl_jax.tasks.stream_scores import FrameScores
from ssl_jax.tasks.task import Result, Task, TaskData, TestRecords, silent
from ssl_jax.tasks.ttt import make_rule, to_float_rows
from ssl_jax.tasks.video_streams import FrameReader, Learning, Video, find_videos, samples_at
from ssl_jax.ttt.window import draw_rows
from ssl_jax.view.video_stream import StreamPictures, plot_over_time

SAVE_EVERY = 60  # seconds between two saves of the partial results


class Settings(NamedTuple):
  """The options of `make`."""

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
  short_side: int
  block: int


def make(
  *,
  carry: bool = True,
  window: int = 16,
  steps: int = 1,
  copies: int = 32,
  learning_rate: float = 1e-4,
  encoder_rate: float = 0.1,
  optimizer: Literal["sgd", "nesterov", "adamw"] = "adamw",
  momentum: float = 0.9,
  weight_decay: float = 0.05,
  clip_norm: float = 0.01,
  trainable: tuple[str, ...] = (),
  offline: int = 0,
  order: Literal["time", "shuffled"] = "time",
  micro_batches: int = 1,
  together: int = 0,
  short_side: int = 0,
  block: int = 25,
) -> Task:
  """At each frame of a video, the network learns on the latest frames and then predicts the frame.

  The parameters of a new video are the trained ones. With carry=True those of a frame are where the next one
  starts (implicit memory); the window of the latest frames, the present one among them, is the explicit
  memory. No memory: carry=False, window=1; implicit only: window=1; explicit only: carry=False. The state of
  the optimiser is made anew at each frame. Frames are augmented with config.augment, and masked by the
  method; the head of the classes does not move. The rows of a batch are concatenated permutations of the
  window. A run that was interrupted resumes at the frame where it stopped, with the same results.

  "miou" is the mean over the classes that are present in the truth of a frame, averaged over all frames: the
  average over the frames of each video, weighted by its length. "miou_frozen" is that of the trained
  network on the same frames, "gain" their difference; "miou_before" that of each frame's first parameters.
  Standard errors are over blocks of neighbouring frames. "total_miou" is that of all pixels together.

  Args:
    carry: whether the parameters are carried from frame to frame.
    window: number of the latest frames to learn from; 1: the present one alone; 0: all so far.
    steps: of the optimiser at each frame; 0: the network stays as trained.
    copies: rows of a step.
    learning_rate, optimizer, momentum, weight_decay, clip_norm: of the optimiser, with a constant learning
      rate and no weight decay on biases, norms, tokens and positions; clip_norm: the largest global norm of
      the gradient, 0: no bound.
    encoder_rate: factor of the learning rate of the encoder.
    trainable: which parameters adapt, see `ttt.select_params`; (): the choice of the method.
    offline: steps on the whole video, future frames too, before all of its frames are predicted; then `steps`
      at each frame must be 0. 0: online.
    order: "shuffled": the frames of a video come in a random order.
    micro_batches: parts of the copies that are computed one after another to save memory.
    together: videos at once on a device; 0: as many as suit the platform and the network. It does not change
      the results.
    short_side: pixels to which the shorter side of a frame is resized; 0: its size.
    block: frames of a block.
  Raises: ValueError for options out of range and, in `run`, for test records that are not frames of videos
    with masks; methods.MissingAbility if the network does not segment or has no task at test time.
  Source: Wang et al. 2023, section 4 and released code.
  """
  settings = Settings(**{name: value for name, value in locals().items() if name in Settings._fields})
  _check(settings)
  return Task("ttt_video", functools.partial(_run, settings), resumes=True)


def _check(settings: Settings) -> None:
  for name in ("window", "offline", "together", "short_side"):
    if getattr(settings, name) < 0:
      raise ValueError(f"config.tasks.ttt_video.{name} is {getattr(settings, name)}; use 0 or more")
  for name in ("learning_rate", "encoder_rate", "block"):
    if getattr(settings, name) <= 0:
      raise ValueError(f"config.tasks.ttt_video.{name} is {getattr(settings, name)}; use a positive number")
  if settings.offline and (settings.steps or not settings.carry):
    raise ValueError(
      f"config.tasks.ttt_video.offline is {settings.offline}, which learns before the first frame; use "
      f"steps=0 (is {settings.steps}) and carry=True (is {settings.carry})"
    )


class Streams(NamedTuple):
  """Everything that the streams of a run share."""

  settings: Settings
  mesh: Mesh
  weights: Any  # replicated
  first: Any  # the trained values of the parameters that adapt
  key: Key
  online: ttt.Program
  offline: ttt.Program | None
  judge: Any  # see _judging
  read: FrameReader
  learning: Learning
  numbers: Numbers
  pictures: StreamPictures


def _run(
  settings: Settings,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: Key,
  *,
  extract=None,
  progress=silent,
  partial_results: PartialResults = NOTHING_KEPT,
) -> Result:
  segmenter = backbone.ability(Segmenter, "task 'ttt_video'")
  adaptable = backbone.ability(Adaptable, "task 'ttt_video'", "train a 'joint_segmentation'")
  seed = int(np.asarray(jax.random.key_data(key)).ravel()[-1])
  videos = find_videos(data, shuffled=settings.order == "shuffled", seed=seed)
  records: Any = data.records  # `find_videos` has checked it
  numbers = find_numbers(backbone, records)
  geometry = canvases(segmenter, records, settings.short_side, "ttt_video")
  check_classes(numbers.names, count_classes(backbone, segmenter, geometry.windows))
  streams = _prepare(settings, backbone, adaptable, data, records, geometry, numbers, videos, mesh, key, seed)
  protocol = _protocol(settings, adaptable, backbone, data, videos)
  identity = {**protocol, "weights": digest(backbone), "seed": seed, "at_once": streams.online.size}
  scores = FrameScores(partial_results, identity, SAVE_EVERY)
  with Stop() as stop:
    for loss in _all_videos(streams, videos, scores):
      progress(scores.count(), data.test_size, loss)
      stopped = stop.poll()
      scores.save(now=bool(stopped))
      if stopped:
        raise Stopped(
          f"stopped by {stopped} after {scores.count()} of {data.test_size} frames; run the same command "
          "again to resume"
        )
  partial_results.clear()
  scalars, details = stream_scores.report(scores, videos, settings.block)
  details["ledger"] = {"milliseconds_a_frame": scores.milliseconds(), "streams_at_once": streams.online.size}
  plot = functools.partial(_plot, streams.pictures, scores.over_time(videos))
  return Result(scalars, {**protocol, **details}, scores.arrays(), numbers.names, plot)


def _plot(pictures: StreamPictures, over_time, path: pathlib.Path, title: str) -> None:
  pictures.write(path)
  plot_over_time(f"{path}.png", over_time, title=title)


def _prepare(
  settings, backbone, adaptable, data, records: TestRecords, geometry, numbers, videos, mesh, key, seed
):
  """Compiles nothing yet, but makes the programs."""
  parallel.bound_programs()
  weights, first = ttt.initial_params(backbone, settings.trainable)
  rule = _rule(settings)
  make = functools.partial(_adapt, settings, adaptable, data.augment, rule)
  adapt = make(settings.steps)
  together = settings.together or ttt.images_at_once(adapt, first)
  program = functools.partial(ttt.compile_adapt, mesh=mesh, together=together, carried=True)
  weights, first, key = placement.replicate((weights, first, key), mesh)
  transform = ImageAndFullMask(
    settings.short_side, geometry.windows.canvas, geometry.mask_canvas, records.interpolation
  )
  return Streams(
    settings,
    mesh,
    weights,
    first,
    key,
    online=program(adapt),
    offline=program(make(settings.offline)) if settings.offline else None,
    judge=_judging(adaptable, geometry.mask_canvas, mesh),
    read=FrameReader(records, transform),
    learning=Learning(settings.window, settings.steps, settings.copies, seed),
    numbers=numbers,
    pictures=StreamPictures(videos[0].number, len(videos[0].frames)),
  )


def _adapt(settings: Settings, adaptable: Adaptable, augment: Augment | None, rule, steps: int) -> ttt.Adapt:
  return ttt.make_adapt(
    adaptable,
    augment or to_float_rows,
    rule,
    steps=steps,
    copies=settings.copies,
    micro_batches=settings.micro_batches,
    draw=draw_rows,
  )


def _rule(settings: Settings) -> optax.GradientTransformation:
  """The optimiser, in which the encoder has a learning rate of its own."""
  rule = make_rule(
    settings.optimizer,
    learning_rate=settings.learning_rate,
    momentum=settings.momentum,
    weight_decay=settings.weight_decay,
    weight_decay_on="weights",
    clip_norm=settings.clip_norm,
  )

  def scale(path, leaf):
    return leaf * settings.encoder_rate if path[0].key == "encoder" else leaf

  slower = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))
  return optax.chain(rule, slower)


def _judging(adaptable: Adaptable, canvas: tuple[int, int], mesh: Mesh):
  """A function of (weights, first parameters, images, sizes, sizes of the masks, AdaptResult) that returns
  the classes uint8[3, S, *canvas] after adaptation, before it, and of the trained network.
  """

  @jax.jit
  def judge(weights, first, images, sizes, mask_sizes, result: ttt.AdaptResult):
    params = ttt.merge_params(first, weights.params)
    batch = {"image": images.astype(jnp.float32) / 255, "image_size": sizes}
    frozen = adaptable.predict(params, weights.model_state, batch)
    ones = jnp.ones(frozen.shape[:3], jnp.float32)
    found = [
      classes_of(Totals(logits, ones), sizes, mask_sizes, canvas)
      for logits in (result.logits, result.curve[:, 0], frozen)
    ]
    return jax.lax.with_sharding_constraint(jnp.stack(found), placement.replicated(mesh))

  return judge


def _all_videos(streams: Streams, videos: list[Video], scores: FrameScores) -> Iterator[float]:
  """Adapts along all videos, as many at once as the program takes. Yields the loss of each time."""
  size = streams.online.size
  for start in range(0, len(videos), size):
    group = videos[start : start + size]
    longest = max(len(video.frames) for video in group)
    done = max(scores.done(video.number) for video in group)
    if done >= longest:
      continue
    padded = [*group, *[group[-1]] * (size - len(group))]
    yield from _some_videos(streams, padded, len(group), scores, done)


def _some_videos(
  streams: Streams, videos: list[Video], real: int, scores: FrameScores, done: int
) -> Iterator[float]:
  """Goes on with videos from time `done`; the last ones beyond `real` only fill the program."""
  first = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(videos)), streams.first)
  place = functools.partial(jax.tree.map, lambda leaf: placement.spread(np.asarray(leaf), streams.mesh))
  first = place(jax.tree.map(placement.fetch, first))
  if done:
    current = place(jax.tree.unflatten(jax.tree.structure(first), scores.stream))
  else:
    current = _learn_offline(streams, videos, first, place)
  longest = max(len(video.frames) for video in videos[:real])
  for moment in range(done, longest):
    began = time.perf_counter()
    samples, positions = samples_at(streams.read, videos, moment, streams.learning)
    placed = place((samples, positions))
    start = current if streams.settings.carry else first
    result, current = streams.online.respond(streams.weights, start, streams.key, *placed)
    rows = streams.read(positions)
    mask_sizes = place(np.stack([row["mask_size"] for row in rows]))
    image, sizes = placed[0]["image"], placed[0]["image_size"]
    predicted = streams.judge(streams.weights, streams.first, image, sizes, mask_sizes, result)
    predicted, losses = placement.fetch(predicted), placement.fetch(result.losses)
    for i, video in enumerate(videos[:real]):
      if moment < len(video.frames):
        truth = streams.numbers.table[rows[i]["mask"]]
        diverged = bool(placement.fetch(result.diverged)[i])
        scores.add(video.number, moment, positions[i], truth, predicted[:, i], losses[i], diverged)
        streams.pictures.add(video.number, moment, *_shown(rows[i], truth, predicted[:, i]))
    scores.stream = [placement.fetch(leaf) for leaf in jax.tree.leaves(current)]
    scores.lap(time.perf_counter() - began, real, first=moment == done)
    yield float(losses[:real, -1].mean()) if losses.shape[1] else 0.0


def _shown(row: dict[str, np.ndarray], truth: np.ndarray, predicted: np.ndarray):
  """Image, truth, and the predictions of the trained and the adapted network, without padding."""
  (height, width), (tall, wide) = row["image_size"], row["mask_size"]
  return row["image"][:height, :width], truth[:tall, :wide], list(predicted[[2, 0], :tall, :wide])


def _learn_offline(streams: Streams, videos: list[Video], first, place):
  """The parameters with which the videos begin: those that were trained, or that learned on whole videos."""
  if streams.offline is None:
    return first
  learning = streams.learning._replace(steps=streams.settings.offline)
  samples, positions = samples_at(streams.read, videos, 0, learning, everything=True)
  placed = place((samples, positions))
  return streams.offline.respond(streams.weights, first, streams.key, *placed)[1]


def _protocol(
  settings: Settings, adaptable: Adaptable, backbone: Backbone, data: TaskData, videos: list[Video]
) -> dict[str, Any]:
  given = {name: value for name, value in settings._asdict().items() if name not in ("together", "trainable")}
  return {
    **data.protocol,
    **backbone.protocol,
    **given,
    "task": "ttt_video",
    "trainable": list(settings.trainable or adaptable.trainable),
    "backbone_mode": "evaluation",
    "crop": "none",
    "videos": {video.name: len(video.frames) for video in videos},
  }
