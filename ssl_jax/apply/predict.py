"""What a trained network says of images or frames that have no labels; it may learn while it predicts."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Literal, get_args

import jax
import numpy as np

from ssl_jax import augment as augmentations
from ssl_jax import parallel
from ssl_jax.apply.encoding import clear_parts
from ssl_jax.apply.kinds import MAPS, PICTURES, Work, kind_of
from ssl_jax.apply.learning import learning_options
from ssl_jax.apply.new_images import open_new_images, open_video
from ssl_jax.apply.tables import (
  TABLE,
  Boxes,
  Found,
  Maps,
  Predictions,
  read_predictions,
  read_protocol,
  write_predictions,
)
from ssl_jax.config.checked import nearest, options_of
from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.core import Augment
from ssl_jax.log.waiting import waiting
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import restore
from ssl_jax.tasks.backbone import digest

Adapt = Literal["none", "standard", "online", "window"]


def predict(
  workdir: str | pathlib.Path,
  data_dir: str = "",
  *,
  source: Any = None,
  output: str | pathlib.Path,
  video: str = "",
  adapt: Adapt = "none",
  config: EvaluateConfig | None = None,
  name: str = "",
  split: str = "",
  step: int = 0,
  weights: str = "params",
  size: int = 0,
  crop_ratio: float = 1.0,
  batch_size: int = 128,
  workers: int = 0,
  seed: int = 0,
) -> Found:
  """Predicts every image of a folder or data set, or every frame of a video, in order.

  A classifier gives the probability of every class; a segmenter the class of every pixel, in files; a
  detector boxes. Segmenters and detectors see whole images, whose shorter side becomes `size` pixels, and
  also draw pictures of what they find and, of a video, a film.

  Work that was interrupted continues where it stopped, with the same results; if `output` is complete, it is
  read. Images that cannot be decoded are named in warnings and have no row.

  Args:
    workdir, step, weights: the run, see `restore`; its network is a classifier, a segmenter or a detector.
    data_dir, source, name, split, size, crop_ratio: the images, see `new_images.open_new_images`.
    output: the folder that gets predictions.csv; predictions.json with the protocol and the time; and perhaps
      the folders maps (the class of each pixel, PNG with a palette) and pictures, and film.gif.
    video: a video file, or a folder of numbered images, in the place of images.
    adapt: what the network learns from before it predicts an image: "none"; "standard": the image, each time
      starting from the trained weights; "online": the image, starting from what the images before it left;
      "window": as "online", and from the latest 16 images.
    config: an evaluation whose task 'ttt' or 'ttt_video' has the options of the learning, and whose `augment`
      augments what is learned from, such as configs/ttt/mae.py; None: the augmentation of the training, and
      the network's own task or, without one, Tent; see `learning.learning_options`.
    batch_size: of images that are not learned from; it is rounded up to a multiple of the number of devices.
    workers: number of processes that decode; 0: threads.
    seed: of what is drawn to learn.
  Returns: the predictions, on every process.
  Raises: ValueError for a wrong option, run or folder and methods.MissingAbility for a network that predicts
    nothing, or has nothing to learn, before any image is read; Stopped on Ctrl-C or SIGTERM, after the rows
    so far are saved.
  """
  if adapt not in get_args(Adapt):
    raise ValueError(f"--adapt={adapt}: it is unknown{nearest(adapt, get_args(Adapt))}")
  if batch_size < 1:
    raise ValueError(f"--batch_size={batch_size}: use a positive number")
  chosen: dict[str, Any] = dict(data_dir=data_dir, source=source, name=name, split=split)
  chosen |= dict(size=size, crop_ratio=crop_ratio)
  folder = pathlib.Path(output).expanduser()
  mesh = parallel.make_mesh()
  with waiting(f"restoring the network of {workdir}"):
    run = restore(workdir, mesh, step=step, weights=weights)
  find, fit = kind_of(run.backbone)
  options = learning_options(run.backbone, adapt, config)
  images = open_video(run.config, video, **chosen) if video else open_new_images(run.config, **chosen)
  _say(f"{images.protocol['data']} {images.protocol['split']}: {images.source.summary()}")
  augment, section = _augment(run.config, config, images.protocol["crop"]) if options else (None, None)
  images = fit(run.backbone, images)
  identity = {
    **dict(run.backbone.protocol),
    **images.identity(),
    "adapt": adapt,
    "weights_digest": digest(run.backbone),
  }
  if options is not None:
    identity |= {"learning": options._asdict(), "augment": section, "seed": seed}
  identity = json.loads(json.dumps(identity, default=str))  # as it is read again
  if read_protocol(folder).get("identity") == identity:
    _say(f"{folder / TABLE} is complete")
    return read_predictions(folder)
  folder.mkdir(parents=True, exist_ok=True)
  rows = parallel.fill_devices(batch_size, mesh)
  work = Work(run.backbone, images, mesh, identity, options, augment, folder, rows, workers, seed)
  found = find(work)
  left_out = 0 if isinstance(found, Boxes) else len(images.names) - len(found.names)
  if left_out:
    _say(f"{left_out} of {len(images.names)} images cannot be decoded; they have no row")
  if jax.process_index() == 0:
    write_predictions(folder, found, {**provenance(mesh), "identity": identity})
  clear_parts(folder / TABLE)
  _say(_summary(found, folder))
  return found


def _augment(
  trained: TrainConfig, config: EvaluateConfig | None, size: int
) -> tuple[Augment, dict[str, Any]]:
  """Makes the augmentation of what the network learns from, of one view: (it, its options)."""
  section: dict[str, Any] = dict(config.augment if config else trained.augment) | {"size": size, "views": 1}
  return augmentations.make(section["name"], **options_of(section)), section


def _summary(found: Found, folder: pathlib.Path) -> str:
  """One line about what was found."""
  speed = f"; {found.milliseconds:.1f} ms an image" if found.milliseconds else ""
  told = f"wrote {folder / TABLE}: {len(found.names)} rows"
  if isinstance(found, Maps):
    return f"{told}, and {folder / MAPS} and {folder / PICTURES}{speed}"
  classes = found.classes if isinstance(found, Boxes) else found.probabilities.argmax(1)
  counts = np.bincount(classes, minlength=len(found.class_names))
  most = np.argsort(-counts, kind="stable")[:5]
  listed = ", ".join(f"{counts[i]} {found.class_names[i]}" for i in most if counts[i])
  told += f" ({listed})" if listed else ""
  if isinstance(found, Predictions) and found.frozen is not None:
    speed += f"; learning changed {(classes != found.frozen.argmax(1)).sum()} predictions"
  return told + speed


def _say(text: str) -> None:
  if jax.process_index() == 0:
    print(text, flush=True)
