"""Predicts images while the network learns on them, by the loop of test-time training along videos."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel, tasks
from ssl_jax.abilities import Adaptable
from ssl_jax.apply.new_images import NewImages
from ssl_jax.apply.rows import UNFINISHED
from ssl_jax.config.checked import defaults_of
from ssl_jax.config.schema import EvaluateConfig
from ssl_jax.core import Augment, Key
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import host_batch
from ssl_jax.data.reader import cores
from ssl_jax.log.console import Progress
from ssl_jax.parallel import placement
from ssl_jax.tasks import streams
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.stream_averages import Averages
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.stream_rows import FrameRows
from ssl_jax.tasks.video_streams import FrameReader, Video

WINDOW = 16  # latest images that "window" learns from, as along videos
# options of the tasks that have no effect on predictions, and would change results silently
UNUSED = ("prior", "threshold", "offline", "balance", "vote", "smoothing", "order")
FORMS = {  # of adapting: what carry and window are, and the number of steps without a recipe
  "standard": dict(carry=False, window=1, steps=10),
  "online": dict(carry=True, window=1, steps=1),
  "window": dict(carry=True, window=WINDOW, steps=1),
}


def learning_options(backbone: Backbone, adapt: str, config: EvaluateConfig | None) -> Options | None:
  """The options of learning at test time; None for adapt="none".

  Args:
    config: the options of its task 'ttt' or 'ttt_video' are taken: of the one whose mode is `adapt` if there
      are several, otherwise of the first. None: those of `tasks.ttt.make`, or of
      `tasks.ttt_video.make` for a segmenter, with 10 steps an image for
      "standard" and 1 otherwise, and the objective "tent" for a network without a task of its own.
  Raises: ValueError if the config has no such task, or options out of range; methods.MissingAbility if the
    network has nothing to learn.
  """
  if adapt not in FORMS:
    return None
  form = dict(FORMS[adapt])
  found = {**defaults_of(tasks.factory("ttt_video")), "encoder_rate": 1.0, "clip_norm": 0.0}
  found |= {
    name: value for name, value in defaults_of(tasks.factory("ttt")).items() if name in Options._fields
  }
  if config is None:
    found["objective"] = "own" if Adaptable in backbone.method.abilities else "tent"
  else:
    given = _task_options(adapt, config)
    tasks.make(**given)  # checks names, types and ranges
    found |= given
    form["steps"] = found["steps"]
    if adapt == "window":
      form["window"] = given.get("window", WINDOW)
  found = {**found, **form, "order": "time", "offline": 0, "balance": 0.0}
  options = Options(**{name: found[name] for name in Options._fields}).check("ttt")
  options.learner(backbone, "predict", "use adapt='none', or --config with another objective, such as 'tent'")
  return options


def _task_options(adapt: str, config: EvaluateConfig) -> dict[str, Any]:
  found = [{"task": name, **options} for name, options in config.tasks.items()]
  learning = [options for options in found if options["task"] in ("ttt", "ttt_video")]
  if not learning:
    raise ValueError(
      f"--config has only the tasks {', '.join(config.tasks)}; use a recipe with a task 'ttt', such as "
      "configs/ttt/rotation.py"
    )
  given = next((options for options in learning if options.get("mode") == adapt), learning[0])
  usual = defaults_of(tasks.factory(given["task"]))
  for name in UNUSED:
    if given.get(name, usual.get(name)) != usual.get(name):
      raise ValueError(
        f"--config.tasks has {name}={given[name]!r}, which predictions do not take; use {usual[name]!r}"
      )
  return given


def learn_and_predict(
  backbone: Backbone,
  images: NewImages,
  options: Options,
  augment: Augment | None,
  mesh: Mesh,
  key: Key,
  identity: dict[str, Any],
  folder: pathlib.Path,
  *,
  judge: Callable[..., dict[str, jax.Array]],
  row: Callable[..., dict[str, Any]],
) -> tuple[dict[str, np.ndarray], float]:
  """Learns on every image, and predicts it.

  Images that each start from the trained weights are shared between the devices; a stream runs on one device.

  Args:
    options: of `learning_options`.
    augment: of the images that are learned from.
    identity: what the rows that `folder` keeps of interrupted work depend on.
    judge, row: what is kept of the predictions of an image, see `streams.Streams`.
  Returns: (the rows of all images that can be decoded, in order, with their "index" and "loss"; the
    milliseconds of an image).
  Raises: ValueError if no image can be decoded; Stopped on a stop request, after the rows so far are saved.
  """
  if options.carry:
    mesh = parallel.make_mesh(jax.local_devices()[:1])
  with Progress("predict") as progress:
    progress(0, len(images.names), "reading")
    readable = _readable(images)
    if not len(readable):
      raise ValueError(
        f"none of the {len(images.names)} images can be decoded, such as {images.source.name(0)}"
      )
    progress(0, len(readable), "compiling")
    backbone = options.learner(backbone, "predict", "")
    made = streams.prepare(
      options,
      backbone,
      augment,
      mesh,
      key,
      averages=Averages(0, 0.0),
      read=FrameReader(functools.partial(_read, images)),
      judge=judge,
      row=row,
    )
    kept = PartialResults(folder / UNFINISHED)
    rows = FrameRows(kept, {**identity, "at_once": made.online.size})
    streams.follow(made, _videos(readable, 1 if options.carry else made.online.size), rows, progress)
  found = rows.arrays()
  order = np.argsort(found["index"], kind="stable")
  kept.clear()
  return {name: values[order] for name, values in found.items()}, rows.milliseconds()


def _videos(readable: np.ndarray, count: int) -> list[Video]:
  """The numbers of the images as streams that run at once."""
  parts = np.array_split(readable, min(count, len(readable)))
  return [Video(str(number), number, part) for number, part in enumerate(parts)]


def _readable(images: NewImages) -> np.ndarray:
  """i64[N]: the numbers of the images that can be decoded; the others are named in warnings."""
  if "clip" in images.source.fields or hasattr(images.source.reader, "times"):
    return np.arange(len(images.names))  # a damaged frame ends the stream

  def check(index: int) -> bool:
    try:
      images.transform(None, images.source[index])
    except (DecodeError, OSError) as error:
      print(f"{images.source.name(index)} cannot be decoded and is left out: {error}", flush=True)
      return False
    return True

  with ThreadPoolExecutor(cores()) as pool:
    return np.flatnonzero(list(pool.map(check, range(len(images.names)))))


def _read(images: NewImages, indices) -> dict[str, np.ndarray]:
  batch = host_batch(images.transform, images.source.__getitems__(list(indices)))
  if "image_size" in batch:
    return batch
  sizes = np.tile(np.array(batch["image"].shape[1:3], np.int32), (len(batch["image"]), 1))
  return {"image": batch["image"], "image_size": sizes}


def judge_probabilities(running: streams.Streams, samples, frames, logits) -> dict[str, jax.Array]:
  """f32[S, 2, C]: the probabilities after learning, and those of the trained network."""
  return {"probabilities": _probabilities(logits[0], logits[2], mesh=running.mesh)}


@functools.partial(jax.jit, static_argnames="mesh")
def _probabilities(adapted, frozen, *, mesh: Mesh):
  found = jax.nn.softmax(jnp.stack([adapted, frozen], 1).astype(jnp.float32))
  return jax.lax.with_sharding_constraint(found, placement.replicated(mesh))


def row_of_probabilities(video: Video, moment: int, frame, found) -> dict[str, Any]:
  """The probabilities of an image."""
  return {"probabilities": found["probabilities"]}
