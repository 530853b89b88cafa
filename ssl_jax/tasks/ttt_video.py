"""Test-time training on video streams: a segmenter that goes on learning along each test video."""

from __future__ import annotations

import functools
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel, ttt
from ssl_jax.abilities import Adaptable, Segmenter
from ssl_jax.core import Key
from ssl_jax.data.full_mask import ImageAndFullMask
from ssl_jax.parallel import placement
from ssl_jax.tasks import stream_measures, stream_scores, streams
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.partial_results import NOTHING_KEPT, PartialResults
from ssl_jax.tasks.segmentation import canvases, check_classes, find_numbers
from ssl_jax.tasks.segmented_batches import count_classes
from ssl_jax.tasks.segmented_frame import Frame, Measure
from ssl_jax.tasks.sliding_windows import Totals, classes_of, confident_classes_of
from ssl_jax.tasks.stream_averages import Averages
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.stream_rows import FrameRows
from ssl_jax.tasks.streams import Streams
from ssl_jax.tasks.task import Result, Task, TaskData, silent
from ssl_jax.tasks.video_streams import FrameReader, Video, find_videos
from ssl_jax.view.video_stream import StreamPictures, plot_over_time


def make(
  *,
  objective: ttt.Objective = "own",
  confidence: float = 0.9,
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
  balance: float = 0.0,
  vote: int = 0,
  smoothing: float = 0.0,
  short_side: int = 0,
  block: int = 25,
  scores: tuple[stream_measures.Score, ...] = (),
) -> Task:
  """At each frame of a video, the network learns on the latest frames and then predicts the frame.

  The parameters of a new video are the trained ones. With carry=True those of a frame are where the next one
  starts (implicit memory); the window of the latest frames, the present one among them, is the explicit
  memory. No memory: carry=False, window=1; implicit only: window=1; explicit only: carry=False. The state of
  the optimiser is made anew at each frame. Frames are augmented with config.augment, and masked by the
  method; the head of the classes does not move, unless a baseline or `trainable` moves it. The rows of a
  batch are concatenated permutations of the window. A run that was interrupted resumes at the frame where it
  stopped, with the same results.

  "miou" is the mean over the classes that are present in the truth of a frame, averaged over all frames: the
  average over the frames of each video, weighted by its length. The network learns from frames without
  labels too, but they do not count. "miou_frozen" is that of the trained
  network on the same frames, "gain" their difference; "miou_before" that of each frame's first parameters.
  A baseline that mixes BatchNorm statistics of the frame with those of training, such as "tent", does so in
  all three.
  Standard errors are over blocks of neighbouring frames. "total_miou" is that of all pixels together.
  "resets" is the share of frames after which `balance` took the trained parameters again. `vote` and
  `smoothing` change the predictions after learning, and neither "before" nor "frozen": with steps=0 the gain
  is theirs.

  Args:
    objective: what is learned: "own": the task of the network; or a baseline, such as "tent", see
      `ttt.objectives`. "self_training" on a 'joint_segmentation' masks the frames as the network's own task
      does, and moves the encoder alone, as published; other networks learn from whole frames, and need an
      augmentation that leaves every pixel where it is.
    confidence: for "self_training": the probability above which the class of a pixel is learned.
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
    balance: the parameters become the trained ones again, before the next frame, if the number of classes
      predicted in a frame differs from that of the trained network by more than this fraction of the latter;
      0: never.
    vote: number of mirrored and moved copies of a frame whose predictions vote on the class of each pixel; 0:
      no vote.
    smoothing: weight of the frames before in the probabilities of a frame, an exponential mean at each pixel
      along the stream; 0: none.
    short_side: pixels to which the shorter side of a frame is resized; 0: its size.
    block: frames of a block.
    scores: measured beside "miou", of the adapted and of the trained network: "davis": region similarity and
      contour accuracy, see contour_scores.py; "panoptic": panoptic quality, see panoptic_scores.py;
      "instances": average precision of objects, see instance_scores.py. The latter two need masks that tell
      objects apart.
  Raises: ValueError for options out of range and, in `run`, for test records that are not frames of videos
    with masks; methods.MissingAbility if the network does not segment or has no task at test time.
  Source: Wang et al. 2023, section 4 and released code.
  """
  given = locals()
  options = Options(**{name: given[name] for name in Options._fields}).check("ttt_video")
  averages = Averages(vote, smoothing).check("ttt_video")
  for name, least in (("short_side", 0), ("block", 1)):
    if given[name] < least:
      raise ValueError(f"config.tasks.ttt_video.{name} is {given[name]}; use {least} or more")
  run = functools.partial(_run, options, averages, short_side, block, scores)
  return Task("ttt_video", run, resumes=True)


def _run(
  options: Options,
  averages: Averages,
  short_side: int,
  block: int,
  scores: tuple[stream_measures.Score, ...],
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
  backbone = options.learner(backbone, "ttt_video", "train a 'joint_segmentation'")
  adaptable = backbone.method.abilities[Adaptable]
  seed = streams.seed_of(key)
  videos = find_videos(data, shuffled=options.order == "shuffled", seed=seed)
  records: Any = data.records  # `find_videos` has checked it
  numbers = find_numbers(backbone, records)
  geometry = canvases(segmenter, records, short_side, "ttt_video")
  check_classes(numbers.names, count_classes(backbone, segmenter, geometry.windows))
  measures = stream_measures.make_measures(scores, numbers.names, records)
  transform = ImageAndFullMask(
    short_side,
    geometry.windows.canvas,
    geometry.mask_canvas,
    records.interpolation,
    squash=segmenter.size is not None,
    segments=any(measure.segments for measure in measures.values()),
  )
  pictures = StreamPictures(videos[0].number, len(videos[0].frames))
  parallel.bound_programs()
  together = streams.prepare(
    options,
    backbone,
    data.augment,
    mesh,
    key,
    averages=averages,
    read=FrameReader(functools.partial(records.read, transform)),
    judge=functools.partial(
      _judge, geometry.mask_canvas, any(measure.confidence for measure in measures.values())
    ),
    row=functools.partial(_row, numbers.table, pictures, tuple(measures.values())),
  )
  protocol = _protocol(options, averages, short_side, block, scores, adaptable, backbone, data, videos)
  identity = {**protocol, "weights": digest(backbone), "seed": seed, "at_once": together.online.size}
  rows = FrameRows(partial_results, identity)
  streams.follow(together, videos, rows, progress)
  partial_results.clear()
  found = rows.arrays()
  scalars, details = stream_scores.report(found, videos, block)
  for score, measure in measures.items():
    more, details[score] = measure.report(found, videos)
    scalars |= more
  details["ledger"] = {"milliseconds_a_frame": rows.milliseconds(), "streams_at_once": together.online.size}
  plot = functools.partial(_plot, pictures, stream_scores.over_time(found, videos))
  return Result(scalars, {**protocol, **details}, found, numbers.names, plot)


def _judge(canvas, confident: bool, running: Streams, samples, frames, logits) -> dict[str, jax.Array]:
  """The classes uint8[S, 3, *canvas] after adaptation, before it, and of the trained network, and perhaps
  their probabilities."""
  sizes = placement.spread(np.stack([frame["mask_size"] for frame in frames]), running.mesh)
  classify = confident_classes_of if confident else classes_of
  found = _classes(logits, samples["image_size"], sizes, canvas=canvas, classify=classify, mesh=running.mesh)
  return dict(zip(("classes", "confidence"), found if confident else (found,)))


@functools.partial(jax.jit, static_argnames=("canvas", "classify", "mesh"))
def _classes(logits, sizes, mask_sizes, *, canvas: tuple[int, int], classify, mesh: Mesh):
  ones = jnp.ones(logits[0].shape[:3], jnp.float32)
  found = [classify(Totals(kind, ones), sizes, mask_sizes, canvas) for kind in logits]
  stacked = jax.tree.map(lambda *kinds: jnp.stack(kinds, 1), *found)
  return jax.lax.with_sharding_constraint(stacked, placement.replicated(mesh))


def _row(
  table: np.ndarray,
  pictures: StreamPictures,
  measures: tuple[Measure, ...],
  video: Video,
  moment: int,
  frame,
  found,
) -> dict:
  """Counts the pixels of a frame, and keeps it for the pictures."""
  (height, width), (tall, wide) = frame["image_size"], frame["mask_size"]
  kept = {"segments": frame.get("segments"), "confidence": found.get("confidence")}
  seen = Frame(
    table[frame["mask"]][:tall, :wide],
    found["classes"][:, :tall, :wide],
    **{name: values[..., :tall, :wide] for name, values in kept.items() if values is not None},
  )
  pictures.add(
    video.number, moment, frame["image"][:height, :width], seen.truth, list(seen.predicted[[2, 0]])
  )
  counts = stream_scores.count_pixels(seen.truth, seen.predicted)
  for measure in measures:
    counts |= measure.count(seen)
  return counts


def _plot(pictures: StreamPictures, scores, path: pathlib.Path, title: str) -> None:
  pictures.write(path)
  plot_over_time(f"{path}.png", scores, title=title)


def _protocol(
  options: Options,
  averages: Averages,
  short_side: int,
  block: int,
  scores: tuple[stream_measures.Score, ...],
  adaptable: Adaptable,
  backbone: Backbone,
  data: TaskData,
  videos: list[Video],
) -> dict[str, Any]:
  given = {name: value for name, value in options._asdict().items() if name not in ("together", "trainable")}
  return {
    **data.protocol,
    **backbone.protocol,
    **given,
    **averages._asdict(),
    "short_side": short_side,
    "block": block,
    "scores": list(scores),
    "task": "ttt_video",
    "trainable": list(options.trainable or adaptable.trainable),
    "backbone_mode": "evaluation",
    "crop": "none",
    "videos": {video.name: len(video.frames) for video in videos},
  }
