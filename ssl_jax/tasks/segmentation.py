"""Semantic segmentation: how well a network names the class of every pixel of the test images."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.abilities import Segmenter
from ssl_jax.data import classes
from ssl_jax.data.full_mask import ImageAndFullMask
from ssl_jax.data.host import IGNORE
from ssl_jax.data.image_sizes import resized
from ssl_jax.tasks import sliding_windows
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.segmentation_scores import confusion, scores
from ssl_jax.tasks.segmented_batches import Found, Geometry, count_classes, segment_each, segmenting
from ssl_jax.tasks.sliding_windows import Windows
from ssl_jax.tasks.task import Result, Task, TaskData, TestRecords, silent
from ssl_jax.view.confusion import plot_confusion
from ssl_jax.view.segmentation import plot_segmentation

SHOWN = 6  # test images in the picture


def make(*, window: int = 0, stride: int = 0, short_side: int = 0, together: int = 0) -> Task:
  """Mean intersection over union, pixel accuracy and mean accuracy at the original size of the labels.

  The mean intersection over union is that of one confusion matrix of all test pixels that have a class,
  averaged over the classes that occur in the labels. There is no flip and one scale.

  Args:
    window: side of the square windows that the network sees, in pixels: the size of its training crops. 0:
      the whole image at once, on a canvas of the size of the largest height and width of the test images,
      padded with the mean colour. An image that is smaller than a window is padded in the same way. For a
      network that takes one size only, each image is resized to it, and its prediction back.
    stride: pixels between neighbouring windows; 0: two thirds of the window.
    short_side: to which the shorter side of each image is resized first; 0: its original size.
    together: windows of each image that are computed at once; 0: as many as make up to 8 windows a device.
      It does not change the results.
  Raises: ValueError for options out of range and, in `run`, for test images without masks, classes that the
    network was not trained on, and a window that the network cannot take; methods.MissingAbility for a
    network that does not segment.
  Source: Long et al. 2015, section 5 (the measures); MMSegmentation's sliding evaluation.
  """
  options = Options(window, stride, short_side, together)
  _check(options)

  def run(
    backbone: Backbone, data: TaskData, mesh: Mesh, key: jax.Array, *, extract=None, progress=silent
  ) -> Result:
    return _measure(backbone, data, mesh, options, progress)

  return Task("segmentation", run)


class Options(NamedTuple):
  """The options of `make`."""

  window: int
  stride: int
  short_side: int
  together: int


def _check(options: Options) -> None:
  for name, value in options._asdict().items():
    if value < 0:
      raise ValueError(f"config.tasks.segmentation.{name} is {value}; use 0 for the default, or pixels")
  if options.stride and not options.window:
    raise ValueError(
      f"config.tasks.segmentation.stride is {options.stride}, but window is 0, the whole image; set window "
      "too"
    )
  if options.stride > options.window:
    raise ValueError(
      f"config.tasks.segmentation.stride {options.stride} is larger than the window of {options.window}, "
      f"which leaves pixels without a prediction; use at most {options.window}"
    )


def _measure(backbone: Backbone, data: TaskData, mesh: Mesh, options: Options, progress) -> Result:
  cure = "train one with configs/transfer/segmentation.py"
  segmenter = backbone.ability(Segmenter, "task 'segmentation'", cure)
  records = _records(data)
  numbers = find_numbers(backbone, records)
  geometry = _geometry(segmenter, records, options)
  transform = ImageAndFullMask(
    options.short_side,
    geometry.image_canvas,
    geometry.mask_canvas,
    records.interpolation,
    squash=segmenter.size is not None,
  )
  check_classes(numbers.names, count_classes(backbone, segmenter, geometry.windows))
  segment = segmenting(backbone, segmenter, geometry, options.together, mesh)
  matrix, rows = np.zeros((len(numbers.names), len(numbers.names)), np.int64), 0
  examples = Examples(records, transform)
  for found in segment_each(segment, records.batches(transform)):
    matrix += confusion(numbers.table[found.truth], found.predicted, len(matrix))
    examples.add(found, numbers.table)
    rows += len(found.index)
    progress(rows, data.test_size, 1 - float(np.trace(matrix) / max(matrix.sum(), 1)))
  measured = scores(matrix)
  iou = dict(zip(numbers.names, measured.iou.tolist(), strict=True))
  protocol = {
    **data.protocol,
    **backbone.protocol,
    "task": "segmentation",
    "backbone_mode": "evaluation",
    "crop": "none",
    "window": geometry.windows.window,
    "stride": geometry.windows.stride,
    "canvas": geometry.windows.canvas,
    "short_side": options.short_side,
    "squashed": segmenter.size is not None,
    "test_rows": rows,
    "iou": {name: None if math.isnan(value) else value for name, value in iou.items()},
  }
  found = {"confusion": matrix, **examples.arrays()}
  plot = functools.partial(_plot, found, numbers.names, protocol["iou"])
  return Result(measured.scalars(), protocol, found, numbers.names, plot)


def _plot(found: dict[str, np.ndarray], names: tuple[str, ...], iou, path: pathlib.Path, title: str) -> None:
  plot_segmentation(f"{path}.png", found, names, iou=iou, title=title)
  plot_confusion(
    f"{path}-confusion.png", found["confusion"], class_names=names, title=title, counted="pixels"
  )


def _records(data: TaskData) -> TestRecords:
  if data.records is None or "mask" not in data.records.fields:
    fields = ", ".join(data.records.fields) if data.records else "image, label"
    raise ValueError(
      f"task 'segmentation' needs a mask for every test image, but the data has only {fields}; use a data "
      "set with masks, such as config.data.name='mask_folder'"
    )
  return data.records


class Numbers(NamedTuple):
  """The classes of the test labels as numbers of the network's classes."""

  names: tuple[str, ...]  # of the network's classes
  table: np.ndarray  # uint8[256]: value of the label -> the network's number; IGNORE stays


def find_numbers(backbone: Backbone, records: TestRecords) -> Numbers:
  """Finds the classes of the test labels among those of the network, by name."""
  own = records.class_names
  names = backbone.class_names or own
  table = np.full(256, IGNORE, np.uint8)
  if backbone.class_names and own:
    found = classes.numbers_of(own, names, what="the test masks", owner="the network's training masks")
    table[: len(found)] = found
  else:
    table[:] = np.arange(256)
  return Numbers(tuple(names), table)


def _geometry(segmenter: Segmenter, records: TestRecords, options: Options) -> Geometry:
  """The canvases that hold every test image and label, and the windows of an image.

  Raises: ValueError for a window that is no multiple of what the network needs.
  """
  window, stride, short_side, _ = options
  found, multiple = canvases(segmenter, records, short_side, "segmentation"), segmenter.divisor
  if segmenter.size:
    _check_whole(options, segmenter.size)
    return found
  if window % multiple:
    raise ValueError(
      f"config.tasks.segmentation.window is {window}, but the network takes images whose sides are multiples "
      f"of {multiple}; use {-(-window // multiple) * multiple}"
    )
  if not window:
    return found
  return found._replace(windows=sliding_windows.place_windows(found.image_canvas, window, stride))


def canvases(segmenter: Segmenter, records: TestRecords, short_side: int, task: str) -> Geometry:
  """The canvases that hold every test image and label; an image is one window, padded to what the network
  needs, or of the only size that it takes.

  Raises: ValueError if no test image can be read.
  """
  sizes = records.sizes()
  sizes = sizes[(sizes > 0).all(1)]
  if not len(sizes):
    raise ValueError(f"task {task!r}: none of the test images can be read")
  if segmenter.size:
    return Geometry(Windows(*(segmenter.size,) * 3), segmenter.size, _largest(sizes), resized=True)
  largest = _largest(resized(sizes, short_side) if short_side else sizes)
  canvas = padded_canvas(largest, segmenter.divisor)
  return Geometry(sliding_windows.place_windows(canvas, 0, 0), largest, _largest(sizes), short_side > 0)


def padded_canvas(size: tuple[int, int], divisor: int) -> tuple[int, int]:
  """The least (height, width) that holds an image of `size` and is a multiple of what the network needs."""
  return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def _check_whole(options: Options, size: tuple[int, int]) -> None:
  """Raises ValueError for windows and sizes of images where the network takes whole images of one size."""
  for name in ("window", "short_side"):
    if value := getattr(options, name):
      raise ValueError(
        f"config.tasks.segmentation.{name} is {value}, but the network takes images of {size[0]}x{size[1]} "
        "pixels only, to which whole images are resized; use 0"
      )


def _largest(sizes: np.ndarray) -> tuple[int, int]:
  height, width = (int(side) for side in sizes.max(0))
  return height, width


def check_classes(names: tuple[str, ...], count: int) -> None:
  """Raises ValueError if the network distinguishes another number of classes than there are names."""
  if len(names) != count:
    raise ValueError(
      f"task 'segmentation': the network distinguishes {count} classes, but {len(names)} are named; name the "
      "classes of the test masks, for a mask_folder in classes.txt, in the order of the training masks"
    )


class Examples:
  """Test images from the whole split with their labels and predictions, for a picture."""

  def __init__(self, records: TestRecords, transform: ImageAndFullMask):
    """Chooses the images."""
    readable = np.flatnonzero((records.sizes() > 0).all(1))
    places = np.linspace(0, len(readable) - 1, SHOWN).round().astype(int)
    self.index = readable[np.unique(places)]
    self._read = functools.partial(records.read, transform)
    self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

  def add(self, found: Found, table: np.ndarray) -> None:
    """Keeps the chosen rows of a batch."""
    for row in np.flatnonzero(np.isin(found.index, self.index)):
      self._found[int(found.index[row])] = table[found.truth[row]], found.predicted[row]

  def arrays(self) -> dict[str, np.ndarray]:
    """The images that were found, of M: "shown_image" uint8[M, H, W, 3], "shown_image_size" i32[M, 2],
    "shown_truth" and "shown_predicted" uint8[M, H', W'], "shown_mask_size" i32[M, 2].
    """
    index = sorted(self._found)
    if not index:
      return {}
    rows = self._read(index)
    truth, predicted = (np.stack([self._found[i][part] for i in index]) for part in (0, 1))
    kept = {f"shown_{name}": rows[name] for name in ("image", "image_size", "mask_size")}
    return {**kept, "shown_truth": truth, "shown_predicted": predicted}
