"""Object detection and instance segmentation: average precision on the test images."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import ObjectDetector
from ssl_jax.data import classes
from ssl_jax.data.objects import Objects, of_record
from ssl_jax.data.whole_image import WholeImage, canvas_of
from ssl_jax.tasks import detection_scores
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.detected_batches import detect_each, detecting, has_masks
from ssl_jax.tasks.detection_scores import Detected
from ssl_jax.tasks.task import Result, Task, TaskData, TestRecords, silent
from ssl_jax.view.detection import Shown, plot_detection

SHOWN = 6  # test images in the picture
METRICS = ("coco", "voc_11_point", "voc_area")

Metric = Literal["coco", "voc_11_point", "voc_area"]


class Options(NamedTuple):
  """The options of `make`."""

  metric: Metric
  rounded: bool
  short_side: int
  longest: int
  masks: bool


def make(
  *, metric: Metric = "coco", rounded: bool = False, short_side: int = 0, longest: int = 0, masks: bool = True
) -> Task:
  """Average precision of boxes, and of masks if the network and the data have them.

  Every image is resized as a whole, on a canvas that holds all test images; boxes and masks are compared at
  the full size of the images. There is no flip and one scale.

  Args:
    metric: "coco": the mean over ten overlaps, by faster-coco-eval; "voc_11_point" (VOC 2007) and "voc_area":
      as PASCAL VOC, at the same overlaps. The numbers differ, and their names say which they are.
    rounded: scores and boxes are rounded as detectron2 does for VOC, see `detection_scores.voc_scores`.
    short_side: to which the shorter side of an image is resized, pixels; 0: it keeps its size.
    longest: greatest length of the longer side after that; 0: any.
    masks: whether masks are measured too, by COCO's metric, where network and data have them.
  Raises: ValueError for options out of range and, in `run`, for test images without boxes and for classes
    that the network was not trained on; methods.MissingAbility for a network that does not detect.
  Source: Everingham et al. 2010; Lin et al. 2014; the sizes 800 and 1333 are published.
  """
  options = Options(metric, rounded, short_side, longest, masks)
  _check(options)

  def run(
    backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, *, extract=None, progress=silent
  ) -> Result:
    return _measure(backbone, data, mesh, options, progress)

  return Task("detection", run)


def _check(options: Options) -> None:
  for name in ("short_side", "longest"):
    if getattr(options, name) < 0:
      raise ValueError(
        f"config.tasks.detection.{name} is {getattr(options, name)}; use a number of pixels, or 0"
      )
  if options.rounded and options.metric == "coco":
    raise ValueError("config.tasks.detection.rounded is for VOC's metrics; use False for 'coco'")


def _measure(backbone: Backbone, data: TaskData, mesh: Mesh, options: Options, progress) -> Result:
  cure = "train one with configs/transfer/detection.py"
  detector = backbone.ability(ObjectDetector, "task 'detection'", cure)
  records = _records(data)
  names, numbers = _numbers(backbone, detector, records)
  sizes = records.sizes()
  readable = sizes[(sizes > 0).all(1)]
  if not len(readable):
    raise ValueError("task 'detection': none of the test images can be read")
  canvas = canvas_of(readable, options.short_side, options.longest)
  transform = WholeImage(options.short_side, options.longest, canvas, records.interpolation)
  masks = options.masks and "instances" in records.fields and has_masks(backbone, detector, canvas)
  detect = detecting(backbone, detector, tuple(readable.max(0).tolist()) if masks else (0, 0), mesh)
  truths, found, boxes = {}, {}, 0
  for batch in detect_each(detect, records.batches(transform)):
    for row, index in enumerate(batch.index.tolist()):
      truths[index] = _truth(records.record(index), numbers)
      found[index] = batch.detections(row)
      boxes += len(found[index].boxes)
    progress(len(found), data.test_size, f"{boxes} boxes")
  order = sorted(found)
  if not any(len(truth.boxes) for truth in truths.values()):
    raise ValueError("task 'detection': none of the test images that can be read has an object")
  pair = [truths[i] for i in order], [found[i] for i in order]
  scalars, by_class = _scores(*pair, len(names), options, masks=masks)
  protocol = {
    **data.protocol,
    **backbone.protocol,
    "task": "detection",
    "backbone_mode": "evaluation",
    "crop": "none",
    "metric": options.metric,
    "rounded": options.rounded,
    "short_side": options.short_side,
    "longest": options.longest,
    "canvas": canvas,
    "test_rows": len(order),
    "objects": int(sum(len(truth.boxes) for truth in pair[0])),
    "detections": boxes,
    "by_class": {kind: _named(names, values) for kind, values in by_class.items()},
  }
  shown = _shown(order, pair, records, transform)
  return Result(scalars, protocol, {}, names, functools.partial(_plot, shown, names))


def _plot(shown: list[Shown], names: tuple[str, ...], path: pathlib.Path, title: str) -> None:
  plot_detection(f"{path}.png", shown, names, title=title)


def _records(data: TaskData) -> TestRecords:
  if data.records is None or "boxes" not in data.records.fields:
    fields = ", ".join(data.records.fields) if data.records else "image, label"
    raise ValueError(
      f"task 'detection' needs the boxes of every test image, but the data has only {fields}; use a data set "
      "with boxes, such as config.data.name='coco'"
    )
  return data.records


def _numbers(
  backbone: Backbone, detector: ObjectDetector, records: TestRecords
) -> tuple[tuple[str, ...], np.ndarray]:
  """(Names of the network's classes, the network's number of each class of the test data)."""
  own = records.class_names
  names = tuple(backbone.class_names or own)
  if len(names) != detector.num_classes:
    raise ValueError(
      f"task 'detection': the network distinguishes {detector.num_classes} classes, but {len(names)} are "
      "named; use test data with the classes of the training data"
    )
  if not backbone.class_names:
    return names, np.arange(len(names))
  return names, classes.numbers_of(own, names, what="the test boxes", owner="the network's training boxes")


def _truth(record, numbers: np.ndarray) -> Objects:
  objects = of_record(record)
  return objects._replace(classes=numbers[objects.classes].astype(np.int32))


def _scores(
  truths: list[Objects], found: list[Detected], count: int, options: Options, *, masks: bool
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """(Scores by name, the main one first; average precision by class of boxes and of masks).

  Scores without truth, such as that of large objects, are left out.
  """
  if options.metric == "coco":
    boxes: Any = detection_scores.coco_scores(truths, found, count)
    by_class = {"boxes": boxes.by_class}
  else:
    form: Any = options.metric.removeprefix("voc_").replace("_", "-")
    boxes = detection_scores.voc_scores(truths, found, count, form=form, rounded=options.rounded)
    by_class = {"boxes": boxes.by_class.mean(0)}
  scalars = dict(boxes.scalars())
  if masks:
    of_masks = detection_scores.coco_scores(truths, found, count, kind="mask")
    scalars |= of_masks.scalars()
    by_class["masks"] = of_masks.by_class
  return {name: value for name, value in scalars.items() if not math.isnan(value)}, by_class


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
  return {
    name: None if math.isnan(value) else float(value) for name, value in zip(names, values, strict=True)
  }


def _shown(order: list[int], pair, records: TestRecords, transform: WholeImage) -> list[Shown]:
  """Test images from the whole split with their objects and detections, for a picture."""
  places = np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int)) if order else []
  read = functools.partial(records.read, transform)
  shown = []
  for place in places:
    row = {name: leaf[0] for name, leaf in read([order[place]]).items()}
    height, width = row["image_size"]
    scale = float(width / row["full_size"][1])
    shown.append(Shown(row["image"][:height, :width], scale, pair[0][place], pair[1][place]))
  return shown
