"""The options of a picture, and the images that it shows."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.config.schema import EvaluateConfig, TrainConfig
from ssl_jax.data import transforms
from ssl_jax.data.elements import Transform
from ssl_jax.data.reader import Source
from ssl_jax.run.assembly import open_data


class PictureRequest(NamedTuple):
  """The options of all pictures; each picture reads those that it needs."""

  config: TrainConfig | EvaluateConfig | None = None
  workdir: str = ""  # the folder of a run
  output: str = ""  # the .png file to write; "": WORKDIR/pictures/<picture>.png
  index: int = 0  # the position in the data set of the image, or of the first image
  seed: int = 0  # of the random draws
  images: int = 6  # the number of images
  split: str = "test"
  data_dir: str = ""  # a folder of images to show instead of the run's data
  size: int = 0  # side in pixels of the images that the network gets; 0: as in the run
  ratios: tuple[float, ...] = ()  # mask ratios; (): that of the run
  over_epochs: bool = False  # whether to reconstruct with each checkpoint of the run
  step: int = 0  # which checkpoint; 0: the last
  corruption: str = "gaussian_noise"  # of the image that the network adapts to
  severity: int = 5  # of that corruption, 1 to 5
  evaluations: str = ""  # NAME=FILE.json,NAME=FILE.json


def open_images(config: TrainConfig, index: int, count: int) -> tuple[Source, Transform]:
  """Opens the data of a config. `config.data.cache` is ignored, because a picture reads only a few records.

  Returns: the source that `config.data` names, and the transform that `config.host` applies to its records.
  Raises: ValueError if the source lacks one of the records `index` to `index + count - 1`, and for wrong
    options of the data.
  """
  data = dataclasses.replace(config.data, cache=False)
  source, transform = open_data(dataclasses.replace(config, data=data))
  if count > len(source):
    raise ValueError(f"--images={count}: the data set has only {len(source)} images; use fewer")
  if count < 1 or not 0 <= index <= len(source) - count:
    options = f"--index={index}" + (f" --images={count}" if count != 1 else "")
    last = len(source) - max(count, 1)
    raise ValueError(f"{options}: the data set has {len(source)} images; use 0 to {last}")
  return source, transform


def crop_images(config: TrainConfig, request: PictureRequest) -> jax.Array:
  """Opens successive images of `request.split`, resizes and centre-crops them as for evaluation.

  The images are those of the config, or those of the folder `request.data_dir` if it is given.
  Returns: f32[request.images, size, size, 3] in [0, 1].
  Raises: ValueError as `open_images`.
  """
  size = request.size or config.augment["size"]
  data = dataclasses.replace(config.data, split=request.split)
  if request.data_dir:
    data = dataclasses.replace(data, name="folder", data_dir=request.data_dir)
  config = dataclasses.replace(config, data=data, host={"name": "image"})  # no masks or boxes are needed
  source, _ = open_images(config, request.index, request.images)
  crop = transforms.resize_center_crop(size, interpolation=data.interpolation)
  places = range(request.index, request.index + request.images)
  return jnp.asarray(np.stack([crop(None, source[i]["image"]) for i in places]), jnp.float32) / 255


def to_bytes(images: jax.Array) -> np.ndarray:
  """Rounds images f32[..., H, W, 3] in [0, 1] to uint8; values out of range are clipped."""
  return np.asarray(jnp.clip(images, 0, 1) * 255 + 0.5, np.uint8)
