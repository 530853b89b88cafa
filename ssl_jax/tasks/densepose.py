"""DensePose: average precision of the geodesic point similarity on the test images."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import DensePose, ObjectDetector
from ssl_jax.data.objects import Objects, of_record
from ssl_jax.data.whole_image import WholeImage, canvas_of
from ssl_jax.tasks import detection_scores
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.body_surface import chart_distance, read_geodesic
from ssl_jax.tasks.densepose_scores import (
  KAPPA,
  MAX_DETECTIONS,
  DenseDetected,
  Kappa,
  compare,
  densepose_scores,
  part_kappa,
)
from ssl_jax.tasks.detected_batches import detect_each, detecting
from ssl_jax.tasks.task import Result, Task, TaskData, TestRecords, check_choice, silent
from ssl_jax.view.densepose import ShownPeople, plot_densepose

SHOWN = 4  # test images in the picture
LEAST_SCORE = 0.3  # of a detection in the picture


class Options(NamedTuple):
  """The options of `make`."""

  geodesic: str
  kappa: Kappa
  short_side: int
  longest: int


def make(*, geodesic: str = "", kappa: Kappa = "paper", short_side: int = 0, longest: int = 0) -> Task:
  """Average precision of the geodesic point similarity, of its masked form, and of boxes.

  Every image is resized as a whole, on a canvas that holds all test images. U and V are rounded to 8 bits, as
  in detectron2.

  Args:
    geodesic: folder of the distances on the surface of the body, see `body_surface.read_geodesic`; "": the
      distance in the charts of the parts, for which no file is needed. The names of the scores say which.
    kappa: "paper": 0.255; "parts": a value for each part of the body, as detectron2 evaluates. The names of
      the scores say which.
    short_side, longest: as in the task "detection".
  Raises: ValueError for options out of range and, in `run`, for test images without annotated points and for
    a network of several classes; methods.MissingAbility for a network without DensePose.
  Source: Güler et al. 2018, "DensePose"; the sizes 800 and 1333 are detectron2's.
  """
  check_choice("config.tasks.densepose.kappa", kappa, ("paper", "parts"))
  for name, value in (("short_side", short_side), ("longest", longest)):
    if value < 0:
      raise ValueError(f"config.tasks.densepose.{name} is {value}; use a number of pixels, or 0")
  options = Options(geodesic, kappa, short_side, longest)

  def run(
    backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, *, extract=None, progress=silent
  ) -> Result:
    return _measure(backbone, data, mesh, options, progress)

  return Task("densepose", run)


def _measure(backbone: Backbone, data: TaskData, mesh: Mesh, options: Options, progress) -> Result:
  backbone.ability(DensePose, "task 'densepose'", "train one with configs/transfer/densepose.py")
  detector = backbone.ability(ObjectDetector, "task 'densepose'")
  records = _records(data, detector)
  distance = read_geodesic(options.geodesic) if options.geodesic else chart_distance
  sizes = records.sizes()
  readable = np.flatnonzero((sizes > 0).all(1))
  if not len(readable):
    raise ValueError("task 'densepose': none of the test images can be read")
  canvas = canvas_of(sizes[readable], options.short_side, options.longest)
  transform = WholeImage(options.short_side, options.longest, canvas, records.interpolation)
  places = np.unique(np.linspace(0, len(readable) - 1, SHOWN).round().astype(int))
  chosen = set(readable[places].tolist())
  detect = detecting(backbone, detector, (0, 0), mesh, bodies=MAX_DETECTIONS)
  truths, found, compared, drawn, boxes = {}, {}, {}, {}, 0
  for batch in detect_each(detect, records.batches(transform)):
    for row, index in enumerate(batch.index.tolist()):
      bodies = batch.bodies(row)
      truths[index] = of_record(records.record(index))
      found[index] = batch.detections(row)
      compared[index] = compare(truths[index], bodies, distance=distance, kappa=options.kappa)
      if index in chosen:
        drawn[index] = bodies
      boxes += len(found[index].boxes)
    progress(len(found), data.test_size, f"{boxes} boxes")
  if not any(image.annotated.any() for image in compared.values()):
    raise ValueError("task 'densepose': nobody in the test images that can be read has annotated points")
  order = sorted(found)
  name = "geodesic" if options.geodesic else "chart"
  gps, gpsm = densepose_scores([compared[i] for i in order], distance=name, kappa=options.kappa)
  by_box = detection_scores.coco_scores([truths[i] for i in order], [found[i] for i in order], 1)
  shown = [_shown(i, truths[i], drawn[i], records, transform) for i in sorted(drawn)]
  protocol = {
    **data.protocol,
    **backbone.protocol,
    **_protocol(options, name, canvas),
    "test_rows": len(order),
    "people": int(sum(len(truth.boxes) for truth in truths.values())),
    "annotated_people": int(sum(image.annotated.sum() for image in compared.values())),
  }
  scalars = {**gps.scalars(), **gpsm.scalars(), **by_box.scalars()}
  # Scores without truth, such as that of large people, are left out.
  scalars = {key: value for key, value in scalars.items() if not math.isnan(value)}
  return Result(scalars, protocol, {}, records.class_names, functools.partial(_plot, shown))


def _protocol(options: Options, distance: str, canvas: tuple[int, int]) -> dict:
  parts = {str(i): float(value) for i, value in enumerate(part_kappa()) if i}
  return {
    "task": "densepose",
    "backbone_mode": "evaluation",
    "crop": "none",
    "distance": distance,
    "geodesic": options.geodesic,
    "kappa": KAPPA if options.kappa == "paper" else parts,
    "short_side": options.short_side,
    "longest": options.longest,
    "canvas": canvas,
    "most_detections": MAX_DETECTIONS,
  }


def _plot(shown: list[ShownPeople], path: pathlib.Path, title: str) -> None:
  plot_densepose(f"{path}.png", shown, title=title)


def _records(data: TaskData, detector: ObjectDetector) -> TestRecords:
  if data.records is None or "dense_points" not in data.records.fields:
    fields = ", ".join(data.records.fields) if data.records else "image, label"
    raise ValueError(
      f"task 'densepose' needs the annotated points of every test image, but the data has only {fields}; use "
      "config.data.name='coco' with the annotations of DensePose"
    )
  if detector.num_classes != 1:
    raise ValueError(
      f"task 'densepose': the network distinguishes {detector.num_classes} classes; use one that was trained "
      "on people alone, as DensePose-COCO annotates them"
    )
  return data.records


def _shown(
  index: int, truth: Objects, bodies: DenseDetected, records: TestRecords, transform: WholeImage
) -> ShownPeople:
  """A test image with its people and detections, in its pixels."""
  row = {name: leaf[0] for name, leaf in records.read(transform, [index]).items()}
  height, width = row["image_size"]
  scale = np.float32(width / row["full_size"][1])
  people = [one._replace(frame=one.frame * scale) for one in truth.dense or () if one is not None]
  kept = bodies.scores >= LEAST_SCORE
  boxes, scores, parts, uv = (leaf[kept] for leaf in bodies)
  return ShownPeople(row["image"][:height, :width], people, DenseDetected(boxes * scale, scores, parts, uv))
