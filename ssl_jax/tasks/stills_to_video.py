"""From stills to video: how much accuracy a classifier of images loses on the frames of videos, and what
learning along them gives back.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.core import Key
from ssl_jax.data import transforms
from ssl_jax.tasks import frame_accuracy, streams
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.classification import classifier_of, classify
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.labelled_clips import ClipFrames, Table, choose, read_table
from ssl_jax.tasks.partial_results import NOTHING_KEPT, PartialResults
from ssl_jax.tasks.stream_averages import Averages
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.stream_rows import FrameRows
from ssl_jax.tasks.streams import KINDS, Streams
from ssl_jax.tasks.task import Result, Task, TaskData, silent
from ssl_jax.tasks.video_streams import FrameReader, Video


class Protocol(NamedTuple):
  """The options of the task beside those of learning."""

  clips: str
  table: str
  every: int
  reach: int
  vote: int


def make(
  *,
  clips: str = "",
  table: str = "",
  every: int = 1,
  reach: int = 10,
  vote: int = 16,
  objective: ttt.Objective = "own",
  confidence: float = 0.9,
  carry: bool = True,
  window: int = 1,
  steps: int = 0,
  copies: int = 32,
  learning_rate: float = 1e-3,
  encoder_rate: float = 1.0,
  optimizer: Literal["sgd", "nesterov", "adamw"] = "sgd",
  momentum: float = 0.0,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  trainable: tuple[str, ...] = (),
  offline: int = 0,
  order: Literal["time", "shuffled"] = "time",
  micro_batches: int = 1,
  together: int = 0,
) -> Task:
  """The accuracy on the frames of clips, beside that on held-back stills of the same classes.

  A frame becomes an image by the resize and crop of the stills. The score of a class of the videos is the
  largest of its classes of the network; only classes of the table are compared, for stills too. Standard
  test-time training: carry=False; online: carry=True; with a window of frames: window=16.

  "frame_accuracy" is the mean over videos of the accuracy of their frames, after learning; "frozen" that of
  the trained network, "gain" their difference, "vote" that of the most frequent of its latest predictions.
  "stills" is the accuracy on stills, and "drop" what the trained network loses; "drop_left" what it loses
  after learning. "anchor" and "pm" are the accuracy of the middle frame, and of it with all frames near it;
  "consistency" the share of neighbouring frames with one class. The protocol has intervals of 95% by a
  bootstrap over videos.

  Args:
    clips: the folder of the clips; it must be given.
    table: a JSON file, which must be given: {"classes": {CLASS: [CLASS OF THE NETWORK, ...]}, "clips": {PATH:
      CLASS}, "absent": {PATH: [[FIRST, LAST + 1], ...]}}; paths are relative to `clips`, and frames of
      "absent", which may be missing, do not show the object and are not counted.
    every: every how many frames one is used.
    reach: of "pm", in frames that are used, to both sides.
    vote: frames of a vote.
    objective, confidence, carry, window, steps, copies, learning_rate, encoder_rate, optimizer, momentum,
      weight_decay, clip_norm, trainable, offline, order, micro_batches, together: of learning, see
      `ttt_video.make`; with steps=0 the network stays as trained.
  Raises: ValueError for options out of range and, in `run`, for a table with an unknown class or clip, or
    stills of none of its classes; methods.MissingAbility for a network without classifier or, with steps,
    without a task at test time.
  Source: Shankar et al. 2021, "Do image classifiers generalize across time?".
  """
  given = locals()
  options = Options(**{name: given[name] for name in Options._fields if name in given}).check(
    "stills_to_video"
  )
  for name, least in (("every", 1), ("reach", 0), ("vote", 1)):
    if given[name] < least:
      raise ValueError(f"config.tasks.stills_to_video.{name} is {given[name]}; use {least} or more")
  protocol = Protocol(clips, table, every, reach, vote)
  return Task("stills_to_video", functools.partial(_run, options, protocol), resumes=True)


def _run(
  options: Options,
  chosen: Protocol,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: Key,
  *,
  extract=extract_features,
  progress=silent,
  partial_results: PartialResults = NOTHING_KEPT,
) -> Result:
  classifier_of(backbone, "stills_to_video")
  table = read_table(chosen.clips, chosen.table, backbone.class_names or data.class_names)
  protocol = data.protocol
  pixels = transforms.resize_center_crop(
    protocol["crop"], protocol["resize"], interpolation=protocol["interpolation"]
  )
  frames = ClipFrames(chosen.clips, table, pixels, chosen.every)
  seed = streams.seed_of(key)
  videos = frames.videos(shuffled=options.order == "shuffled", seed=seed)
  still = _stills(backbone, data, table, mesh, extract)
  learner = options.learner(backbone, "stills_to_video", "train a 'joint', or use steps=0")
  parallel.bound_programs()
  together = streams.prepare(
    options,
    learner,
    data.augment,
    mesh,
    key,
    averages=Averages(),
    read=FrameReader(frames.read),
    judge=_judge,
    row=_row,
  )
  protocol = _protocol(options, chosen, learner, backbone, data, videos)
  identity = {**protocol, "weights": digest(backbone), "seed": seed, "at_once": together.online.size}
  rows = FrameRows(partial_results, identity)
  streams.follow(together, videos, rows, progress)
  partial_results.clear()
  scalars, details = report(rows.arrays(), videos, frames, table, still, chosen)
  details["ledger"] = {"milliseconds_a_frame": rows.milliseconds(), "streams_at_once": together.online.size}
  return Result(scalars, {**protocol, **details})


def _judge(running: Streams, samples, frames, logits) -> dict[str, jax.Array]:
  """The logits f32[S, 3, C] of KINDS."""
  return {"logits": jnp.stack(logits, 1)}


def _row(video: Video, moment: int, frame, found) -> dict[str, np.ndarray]:
  return found


def _stills(backbone: Backbone, data: TaskData, table: Table, mesh: Mesh, extract) -> np.ndarray:
  """bool[N]: whether the class of each still is right; only stills of classes of the table count."""
  names = data.class_names or backbone.class_names
  found = classify(backbone, data.test, data.num_classes, mesh, extract, "stills_to_video")
  number = np.full(len(names), -1)
  for place, name in enumerate(names):
    for of_video, own in enumerate(table.own):
      known = tuple(backbone.class_names or names)
      if name in known and known.index(name) in own:
        number[place] = of_video
  truth = number[found.y]
  if not (truth >= 0).any():
    raise ValueError(
      "the test images have none of the classes of config.tasks.stills_to_video.table: "
      + ", ".join(table.names)
    )
  return (choose(found.x, table) == truth)[truth >= 0]


def report(
  rows: dict[str, np.ndarray],
  videos: Sequence[Video],
  frames: ClipFrames,
  table: Table,
  still: np.ndarray,
  chosen: Protocol,
) -> tuple[dict[str, float], dict[str, Any]]:
  """Returns (the scalars, figures with intervals for the protocol)."""
  guesses = choose(rows["logits"], table)  # [N, 3]
  predicted: dict[str, list[np.ndarray]] = {kind: [] for kind in (*KINDS, "vote")}
  right: dict[str, list[np.ndarray]] = {kind: [] for kind in predicted}
  for video in videos:
    mine = np.flatnonzero(rows["video"] == video.number)
    mine = mine[np.argsort(rows["index"][mine])]  # in time, whatever the order of the stream was
    shown = np.array([frames.shown(position) for position in rows["index"][mine]])
    of_video: dict[str, np.ndarray] = dict(zip(KINDS, guesses[mine].T))
    of_video["vote"] = frame_accuracy.vote(of_video["frozen"], chosen.vote, len(table.names))
    for kind, found in of_video.items():
      if shown.any():
        predicted[kind].append(found[shown])
        right[kind].append((found == table.clips[video.name])[shown])
  means = {kind: frame_accuracy.frame_accuracy(found) for kind, found in right.items()}
  pm = {reach: frame_accuracy.pm_accuracy(right["adapted"], reach) for reach in (0, chosen.reach)}
  figures = {
    "frame_accuracy": frame_accuracy.bootstrap(means["adapted"]),
    "frozen": frame_accuracy.bootstrap(means["frozen"]),
    "gain": frame_accuracy.bootstrap(means["adapted"] - means["frozen"]),
    "vote": frame_accuracy.bootstrap(means["vote"]),
    "stills": frame_accuracy.bootstrap(still.astype(float)),
    "drop": frame_accuracy.drop(still, means["frozen"]),
    "drop_left": frame_accuracy.drop(still, means["adapted"]),
    "anchor": frame_accuracy.bootstrap(pm[0]),
    "pm": frame_accuracy.bootstrap(pm[chosen.reach]),
    "consistency": frame_accuracy.bootstrap(frame_accuracy.consistency(predicted["adapted"])),
  }
  details = {
    "intervals": {name: [found.low, found.high] for name, found in figures.items()},
    "by_video": {video.name: float(mean) for video, mean in zip(videos, means["adapted"])},
    "test_rows": len(guesses),
    "still_rows": len(still),
  }
  return {name: found.value for name, found in figures.items()}, details


def _protocol(
  options: Options,
  chosen: Protocol,
  learner: Backbone,
  backbone: Backbone,
  data: TaskData,
  videos: Sequence[Video],
) -> dict[str, Any]:
  given = {name: value for name, value in options._asdict().items() if name not in ("together", "trainable")}
  return {
    **data.protocol,
    **backbone.protocol,
    **given,
    **chosen._asdict(),
    "task": "stills_to_video",
    "trainable": list(options.trainable or learner.method.abilities[Adaptable].trainable),
    "backbone_mode": "evaluation",
    "videos": {video.name: len(video.frames) for video in videos},
  }
