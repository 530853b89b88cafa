"""What a trained classifier says of images or frames that have no labels; it may learn while it predicts."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
import scipy.special
from jax.sharding import Mesh

from ssl_jax import augment as augmentations
from ssl_jax import parallel
from ssl_jax.config.checked import nearest, options_of
from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.core import Augment
from ssl_jax.data import host, transforms
from ssl_jax.log.waiting import waiting
from ssl_jax.run.encoding import Encoding, clear_parts, encode_images
from ssl_jax.run.learn_and_predict import Learned, learn_and_predict, learning_options
from ssl_jax.run.new_images import NewImages, open_new_images
from ssl_jax.run.prediction_files import (
  TABLE,
  Predictions,
  read_predictions,
  read_protocol,
  write_predictions,
)
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import restore
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.classification import classifier_of
from ssl_jax.tasks.stream_options import Options
from ssl_jax.view.class_names import name_classes

Adapt = Literal["none", "standard", "online", "window"]


class _Work(NamedTuple):
  """What is predicted, and how."""

  backbone: Backbone
  images: NewImages
  mesh: Mesh
  identity: dict[str, Any]
  options: Options | None  # of learning at test time; None: the network stays as trained
  augment: Augment | None  # of what it learns from


def predict(
  workdir: str | pathlib.Path,
  data_dir: str = "",
  *,
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
) -> Predictions:
  """Predicts the classes of every image of a folder or data set, or of every frame of a video, in order.

  Work that was interrupted continues where it stopped, with the same results; if `output` is complete, it is
  read. Images that cannot be decoded are named in warnings and have no row.

  Args:
    workdir, step, weights: the run, see `restore`; its network needs a classifier of its own.
    data_dir, name, split, size, crop_ratio: the images, see `new_images.open_new_images`.
    output: the folder that gets predictions.csv and, with the protocol and the time, predictions.json.
    video: a video file, or a folder of numbered images, in the place of images.
    adapt: what the network learns from before it predicts an image: "none"; "standard": the image, each time
      starting from the trained weights; "online": the image, starting from what the images before it left;
      "window": as "online", and from the latest 16 images.
    config: an evaluation whose task 'ttt' or 'ttt_video' has the options of the learning, and whose `augment`
      augments what is learned from, such as configs/ttt/mae.py; None: the augmentation of the training, and
      the network's own task or, without one, Tent; see `learn_and_predict.learning_options`.
    batch_size: of images that are not learned from; it is rounded up to a multiple of the number of devices.
    workers: number of processes that decode; 0: threads.
    seed: of what is drawn to learn.
  Returns: the predictions, on every process.
  Raises: ValueError for a wrong option, run or folder and methods.MissingAbility for a network without a
    classifier or anything to learn, before any image is read; Stopped on Ctrl-C or SIGTERM, after the rows so
    far are saved.
  """
  if adapt not in get_args(Adapt):
    raise ValueError(f"--adapt={adapt}: it is unknown{nearest(adapt, get_args(Adapt))}")
  if batch_size < 1:
    raise ValueError(f"--batch_size={batch_size}: use a positive number")
  folder = pathlib.Path(output).expanduser()
  mesh = parallel.make_mesh()
  with waiting(f"restoring the network of {workdir}"):
    run = restore(workdir, mesh, step=step, weights=weights)
  classifier_of(run.backbone, "predict")
  options = learning_options(run.backbone, adapt, config)
  chosen: dict[str, Any] = dict(data_dir=data_dir, name=name, split=split, size=size, crop_ratio=crop_ratio)
  images = _frames(run.config, video, chosen) if video else open_new_images(run.config, **chosen)
  identity = {
    **dict(run.backbone.protocol),
    **images.identity(),
    "adapt": adapt,
    "weights_digest": digest(run.backbone),
  }
  augment = None
  if options is not None:
    section = dict(config.augment if config else run.config.augment) | {
      "size": images.protocol["crop"],
      "views": 1,
    }
    augment = augmentations.make(section["name"], **options_of(section))
    identity |= {"learning": options._asdict(), "augment": section, "seed": seed}
  identity = _plain(identity)
  work = _Work(run.backbone, images, mesh, identity, options, augment)
  if read_protocol(folder).get("identity") == identity:
    _say(f"{folder / TABLE} is complete")
    return read_predictions(folder)
  _say(f"{images.protocol['data']} {images.protocol['split']}: {images.source.summary()}")
  return _predict(work, folder, batch_size, workers, seed)


def _predict(work: _Work, folder: pathlib.Path, batch_size: int, workers: int, seed: int) -> Predictions:
  """Predicts all images and writes what was found."""
  folder.mkdir(parents=True, exist_ok=True)
  if work.options is None:
    found = _classify(work, folder, batch_size, workers)
  else:
    found = learn_and_predict(
      work.backbone,
      work.images,
      work.options,
      work.augment,
      work.mesh,
      jax.random.key(seed),
      work.identity,
      folder,
    )
  images = work.images
  classes = tuple(name_classes(work.backbone.class_names, found.probabilities.shape[1]))
  times = getattr(images.source.reader, "times", None)
  made = Predictions(
    np.array([images.names[i] for i in found.index], np.str_),
    found.probabilities,
    classes,
    found.frozen,
    found.losses,
    None if times is None else np.array(times)[found.index],
    found.milliseconds,
  )
  left_out = len(images.names) - len(made.names)
  if left_out:
    _say(f"{left_out} of {len(images.names)} images cannot be decoded; they have no row")
  if jax.process_index() == 0:
    write_predictions(folder, made, {**provenance(work.mesh), "identity": work.identity})
  _say(_summary(made, folder))
  clear_parts(folder / TABLE)
  return made


def _classify(work: _Work, folder: pathlib.Path, batch_size: int, workers: int) -> Learned:
  """The probabilities of the network as it was trained."""
  classify = classifier_of(work.backbone, "predict").predict
  encoding = Encoding(
    backbone=work.backbone.reading(classify),
    images=work.images,
    mesh=work.mesh,
    batch_size=-(-batch_size // work.mesh.size) * work.mesh.size,
    workers=workers,
  )
  found = encode_images(encoding, work.identity, folder / TABLE, name="predict")
  return Learned(
    found.rows.index, scipy.special.softmax(found.rows.x, axis=1), milliseconds=found.milliseconds
  )


def _frames(trained: TrainConfig, video: str, chosen: dict[str, Any]) -> NewImages:
  """The frames of a video as images."""
  given = [option for option in ("data_dir", "name", "split") if chosen[option]]
  if given:
    raise ValueError(
      f"--video={video} and --{given[0]}={chosen[given[0]]} are both given; leave out one of them"
    )
  from ssl_jax.video.frame_reader import open_frames  # here: it needs PyAV for video files

  path = os.path.expanduser(video)
  if not os.path.exists(path):
    raise ValueError(f"--video={video} does not exist; name a video file or a folder of numbered images")
  source = open_frames(path)
  like = open_new_images(trained, name="synthetic", size=chosen["size"], crop_ratio=chosen["crop_ratio"])
  protocol = {**like.protocol, "data": "video", "split": os.path.basename(path)}
  pixels = transforms.resize_center_crop(
    protocol["crop"], protocol["resize"], interpolation=protocol["interpolation"]
  )
  names = tuple(source.name(i) for i in range(len(source)))
  return NewImages(source, host.one_image(pixels, source), names, protocol)


def _summary(found: Predictions, folder: pathlib.Path) -> str:
  counts = np.bincount(found.probabilities.argmax(1), minlength=len(found.class_names))
  most = np.argsort(-counts, kind="stable")[:5]
  listed = ", ".join(f"{counts[i]} {found.class_names[i]}" for i in most if counts[i])
  speed = f"; {found.milliseconds:.1f} ms an image" if found.milliseconds else ""
  changed = ""
  if found.frozen is not None:
    changed = (
      f"; {(found.probabilities.argmax(1) != found.frozen.argmax(1)).sum()} predictions changed by learning"
    )
  return f"wrote {folder / TABLE}: {len(found.names)} rows ({listed}){speed}{changed}"


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
  """The same as JSON holds it."""
  return json.loads(json.dumps(identity, default=str))


def _say(text: str) -> None:
  if jax.process_index() == 0:
    print(text, flush=True)
