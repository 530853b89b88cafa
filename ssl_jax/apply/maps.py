"""What a segmenter says of images or frames: the class of every pixel, as files, pictures and a table."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from ssl_jax.abilities import Segmenter
from ssl_jax.apply.pictures import Pictures
from ssl_jax.augment.crops import to_float
from ssl_jax.augment.record_moves import MEAN
from ssl_jax.data import pipeline
from ssl_jax.data.elements import Transform
from ssl_jax.data.reader import Source
from ssl_jax.models.normalize import fill_padding
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.one_ahead import one_ahead, to_devices
from ssl_jax.tasks.streams import Streams
from ssl_jax.tasks.video_streams import Video
from ssl_jax.view.segmentation import make_palette, overlay

MAP, PICTURE = ".png", ".jpg"  # suffixes: the class of every pixel, and the image with their colours


class MapWriter(NamedTuple):
  """Writes the map and the picture of each image."""

  maps: Pictures
  pictures: Pictures
  count: int  # of classes

  def write(self, index: int, image: np.ndarray, classes: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Writes the classes uint8[h, w] of an image uint8[h, w, 3], and the image with their colours.

    Args:
      full: i32[2], (height, width) of the image as it is stored.
    Returns: f32[C]: the fraction of the pixels that each class covers.
    """
    stored = Image.fromarray(classes).resize((int(full[1]), int(full[0])), Image.Resampling.NEAREST)
    stored.putpalette(make_palette(self.count).reshape(-1).tolist())
    stored.save(self.maps.path(index, MAP))
    Image.fromarray(overlay(image, classes)).save(self.pictures.path(index, PICTURE), quality=90)
    return (np.bincount(classes.reshape(-1), minlength=self.count) / classes.size).astype(np.float32)

  def row(
    self, video: Video, moment: int, frame: dict[str, np.ndarray], found: dict[str, np.ndarray]
  ) -> dict:
    """The row of a stream: the fractions after learning, and those of the trained network."""
    height, width = frame["image_size"]
    adapted, frozen = found["classes"][:, :height, :width]
    image = frame["image"][:height, :width]
    after = self.write(int(video.frames[moment]), image, adapted, frame["full_size"])
    before = np.bincount(frozen.reshape(-1), minlength=self.count) / frozen.size
    changed = np.float32((adapted != frozen).mean())
    return {"fractions": after, "frozen": before.astype(np.float32), "changed": changed}


def judge_classes(running: Streams, samples, frames, logits) -> dict[str, jax.Array]:
  """uint8[S, 2, H, W]: the classes after learning, and those of the trained network."""
  return {"classes": _classes(logits[0], logits[2], mesh=running.mesh)}


@functools.partial(jax.jit, static_argnames="mesh")
def _classes(adapted, frozen, *, mesh: Mesh):
  found = jnp.stack([jnp.argmax(logits, -1).astype(jnp.uint8) for logits in (adapted, frozen)], 1)
  return jax.lax.with_sharding_constraint(found, placement.replicated(mesh))


def segment_images(
  backbone: Backbone,
  source: Source,
  transform: Transform,
  mesh: Mesh,
  writer: MapWriter,
  first: int,
  *,
  batch_size: int,
  workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Writes the map and the picture of every image; yields (its number, {"fractions": ...}), in order.

  Args:
    source: the records from number `first` on.
  """
  predict = backbone.method.abilities[Segmenter].predict
  weights = placement.replicate(tuple(backbone.weights), mesh)
  waiting: list[dict[str, np.ndarray]] = []

  def start(rows: dict[str, np.ndarray]):
    waiting.append(rows)
    return (_segment(*weights, to_devices(rows, mesh), predict=predict, mesh=mesh),)

  with pipeline.eval_batches(
    source, batch_size=batch_size, transform=transform, workers=workers, max_bad_fraction=1.0
  ) as batches:
    for (classes,) in one_ahead(start, batches):
      rows = waiting.pop(0)
      for row in np.flatnonzero(rows["valid"]):
        height, width = rows["image_size"][row]
        shown, found = rows["image"][row, :height, :width], classes[row, :height, :width]
        index = first + int(rows["index"][row])
        yield index, {"fractions": writer.write(index, shown, found, rows["full_size"][row])}


@functools.partial(jax.jit, static_argnames=("predict", "mesh"))
def _segment(params, model_state, batch, *, predict, mesh: Mesh):
  images = fill_padding(to_float(batch["image"]), batch["image_size"], MEAN)
  found = jnp.argmax(predict(params, model_state, images), -1).astype(jnp.uint8)
  return jax.lax.with_sharding_constraint(found, placement.replicated(mesh))


def count_classes(backbone: Backbone, canvas: tuple[int, int]) -> int:
  """The number of classes that the network distinguishes."""
  view = jax.ShapeDtypeStruct((1, *canvas, 3), jnp.float32)
  return jax.eval_shape(backbone.method.abilities[Segmenter].predict, *backbone.weights, view).shape[-1]
