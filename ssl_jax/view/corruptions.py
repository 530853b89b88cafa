"""The picture `corruptions`: one image under the fifteen corruptions of the benchmark."""

from __future__ import annotations

import pathlib
from typing import cast

import jax
import jax.numpy as jnp

from ssl_jax import corrupt
from ssl_jax.config.schema import TrainConfig
from ssl_jax.tasks.corrupted import SMALL
from ssl_jax.view.columns import Column, plot_columns
from ssl_jax.view.request import PictureRequest, crop_images

SEVERITIES = (1, 3, 5)  # one row each


def show_corruptions(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws one image under the fifteen corruptions, one row for each of SEVERITIES.

  The parameters are those of CIFAR-10-C for images below 64 pixels, else those of ImageNet-C.
  Raises: ValueError for an index out of range and for images that are too small for the corruptions.
  """
  config = cast(TrainConfig, request.config)
  size = request.size or config.augment["size"]
  table = "cifar" if size < SMALL else "imagenet"
  functions = {name: jax.jit(corrupt.make(name, table=table)) for name in corrupt.CORRUPTIONS}
  image = crop_images(config, request._replace(images=1))[0]
  key = jax.random.key(request.seed)
  clean = Column("clean", jnp.stack([image] * len(SEVERITIES)))
  columns = [
    Column(name.replace("_", "\n"), jnp.stack([function(key, image, severity) for severity in SEVERITIES]))
    for name, function in functions.items()
  ]
  title = (
    f"Image {request.index} of {config.data.name} {request.split} at severities 1, 3 and 5, "
    f"parameters of {table}; procedural frost"
  )
  plot_columns(output, [[clean], columns[:7], columns[7:]], title=title)
