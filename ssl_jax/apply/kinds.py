"""How networks of different kinds predict images: classifiers, segmenters and detectors."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special
from jax.sharding import Mesh

from ssl_jax.abilities import ObjectDetector, Segmenter
from ssl_jax.apply.boxes import detect_images, unpack
from ssl_jax.apply.encoding import Encoding, encode_images
from ssl_jax.apply.learning import judge_probabilities, learn_and_predict, row_of_probabilities
from ssl_jax.apply.maps import PICTURE, MapWriter, count_classes, judge_classes, segment_images
from ssl_jax.apply.new_images import NewImages
from ssl_jax.apply.pictures import Pictures, whole_images
from ssl_jax.apply.rows import predict_each
from ssl_jax.apply.tables import TABLE, Boxes, Found, Maps, Predictions
from ssl_jax.core import Augment
from ssl_jax.data.reader import Source
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.classification import classifier_of
from ssl_jax.tasks.stream_options import Options
from ssl_jax.tasks.stream_rows import split_rows
from ssl_jax.view.class_names import name_classes

MAPS, PICTURES, FILM = "maps", "pictures", "film.gif"


class Work(NamedTuple):
  """What is predicted, and how."""

  backbone: Backbone
  images: NewImages
  mesh: Mesh
  identity: dict[str, Any]
  options: Options | None  # of learning at test time; None: the network stays as trained
  augment: Augment | None  # of what it learns from
  folder: pathlib.Path
  batch_size: int
  workers: int
  seed: int

  def learn(self, judge: Callable, row: Callable) -> tuple[dict[str, np.ndarray], float]:
    """Learns while it predicts, see `learning.learn_and_predict`."""
    learning: Any = self.options  # callers have checked that there are options
    given = (self.backbone, self.images, learning, self.augment, self.mesh)
    return learn_and_predict(
      *given, jax.random.key(self.seed), self.identity, self.folder, judge=judge, row=row
    )

  def named(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(the names str[N] of these images, the times f64[N] of these frames or None)."""
    times = _times(self.images)
    names = np.array([self.images.names[i] for i in index], np.str_)
    return names, np.array(times)[index] if times else None


def kind_of(backbone: Backbone) -> tuple[Callable[[Work], Found], Callable[[Backbone, NewImages], NewImages]]:
  """Returns how the network predicts, and how images are made to fit it.

  Raises: methods.MissingAbility for a network that is neither a segmenter nor a detector nor a classifier.
  """
  dense = {Segmenter, ObjectDetector} & set(backbone.method.abilities)
  if dense and jax.process_count() > 1:
    raise ValueError("maps and boxes are predicted by one process; start the command on one machine")
  if Segmenter in backbone.method.abilities:
    return _maps, _for_segmenter
  if ObjectDetector in backbone.method.abilities:
    return _boxes, lambda _, images: whole_images(images, size=images.protocol["crop"])
  classifier_of(backbone, "predict")
  return _classes, lambda _, images: images


def _for_segmenter(backbone: Backbone, images: NewImages) -> NewImages:
  segmenter = backbone.method.abilities[Segmenter]
  return whole_images(images, size=images.protocol["crop"], divisor=segmenter.divisor, only=segmenter.size)


def _classes(work: Work) -> Predictions:
  """The probabilities of every class."""
  if work.options is None:
    encoding = Encoding(
      backbone=work.backbone.reading(classifier_of(work.backbone, "predict").predict),
      images=work.images,
      mesh=work.mesh,
      batch_size=work.batch_size,
      workers=work.workers,
    )
    encoded = encode_images(encoding, work.identity, work.folder / TABLE, name="predict")
    index, found = encoded.rows.index, scipy.special.softmax(encoded.rows.x, axis=1)
    frozen, losses, milliseconds = None, None, encoded.milliseconds
  else:
    rows, milliseconds = work.learn(judge_probabilities, row_of_probabilities)
    index, losses = rows["index"], rows["loss"]
    found, frozen = rows["probabilities"][:, 0], rows["probabilities"][:, 1]
  names, seconds = work.named(index)
  classes = tuple(name_classes(work.backbone.class_names, found.shape[1]))
  return Predictions(names, found, classes, frozen, losses, seconds, milliseconds)


def _maps(work: Work) -> Maps:
  """The class of every pixel."""
  times = _times(work.images)
  canvas = work.images.transform.elements["image"].shape[:2]
  count = count_classes(work.backbone, (canvas[0], canvas[1]))
  pictures = Pictures(work.folder / PICTURES, work.images.names, times)
  writer = MapWriter(pictures._replace(folder=work.folder / MAPS), pictures, count)
  changed = losses = None
  if work.options is None:
    made = functools.partial(_each_map, work, writer)
    rows, milliseconds = predict_each(work.images, made, work.identity, work.folder)
  else:
    rows, milliseconds = work.learn(judge_classes, writer.row)
    changed, losses = rows["changed"], rows["loss"]
  pictures.film(work.folder / FILM, PICTURE)
  names, seconds = work.named(rows["index"])
  classes = tuple(name_classes(work.backbone.class_names, count))
  return Maps(names, rows["fractions"], classes, changed, losses, seconds, milliseconds)


def _each_map(work: Work, writer: MapWriter, source: Source, first: int):
  options = dict(batch_size=work.batch_size, workers=work.workers)
  return segment_images(work.backbone, source, work.images.transform, work.mesh, writer, first, **options)


def _boxes(work: Work) -> Boxes:
  """The objects of every image."""
  pictures = Pictures(work.folder / PICTURES, work.images.names, _times(work.images))
  made = functools.partial(_each_box, work, pictures)
  rows, milliseconds = predict_each(work.images, made, work.identity, work.folder)
  found = [unpack(bytes(row)) for row in split_rows(rows, "boxes")]
  pictures.film(work.folder / FILM, PICTURE)
  names, seconds = work.named(np.repeat(rows["index"], [len(table) for table in found]))
  table = np.concatenate(found)
  detector = work.backbone.method.abilities[ObjectDetector]
  classes = tuple(name_classes(work.backbone.class_names, detector.num_classes))
  return Boxes(names, table[:, :4], table[:, 4], table[:, 5].astype(np.int32), classes, seconds, milliseconds)


def _each_box(work: Work, pictures: Pictures, source: Source, first: int):
  options = dict(batch_size=work.batch_size, workers=work.workers)
  return detect_images(work.backbone, source, work.images.transform, work.mesh, pictures, first, **options)


def _times(images: NewImages) -> tuple[float, ...]:
  """The times of the frames of a video, seconds; () for images."""
  return getattr(images.source.reader, "times", ())
