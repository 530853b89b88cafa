"""Host transforms: each turns a record into named arrays of fixed shapes.

`config.host` holds the name of a transform and its options. A transform declares the arrays that it makes
(`elements`); the pipeline, the cache, the shared buffers and the compiled step derive their shapes from them.
To add a transform, write a factory `(frame, *, options...) -> Transform` here and list it in TRANSFORMS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.data import body_parts, clip_transforms, decode, instance_masks, stored_frames, transforms
from ssl_jax.data.dense_points import DenseRows
from ssl_jax.data.elements import Elements, Record, ShapeDtype, Transform
from ssl_jax.data.fit import Fit, Frame, Place, image_transform, make_fit
from ssl_jax.data.image_bits import image_bits
from ssl_jax.data.mask_values import IGNORE, check_size, decode_pair
from ssl_jax.data.reader import Source


@dataclasses.dataclass(frozen=True)
class ImageAndLabel:
  """Record {"image", "label"} -> {"image": uint8[*shape], "label": i32[]}."""

  pixels: transforms.ImageTransform

  @property
  def random(self) -> bool:
    """Whether the crops are random."""
    return self.pixels.random

  @property
  def elements(self) -> Elements:
    """The image, or its views, and the label; -1 if the source has no labels."""
    return {"image": ShapeDtype(tuple(self.pixels.shape), np.uint8), "label": ShapeDtype((), np.int32)}

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    return {"image": self.pixels(rng, record["image"]), "label": record["label"]}


@dataclasses.dataclass(frozen=True)
class ImageAndMask:
  """See `image_mask`."""

  fitting: Fit
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The image, its mask and the size of the part of the canvas that they cover."""
    return {
      "image": ShapeDtype((*self.fitting.canvas, 3), np.uint8),
      "mask": ShapeDtype(self.fitting.canvas, np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    opened, mask = decode_pair(record)
    place = self.fitting.place(*opened.size)
    image = self.fitting.image(opened, place)
    return {"image": image, "mask": self.fitting.mask(mask, place, IGNORE), "image_size": place.filled()}


@dataclasses.dataclass(frozen=True)
class ImageAndBoxes:
  """See `image_boxes`, `image_instances` and `image_densepose`."""

  fitting: Fit
  max_boxes: int
  mask_size: int = 0  # side of the mask in the frame of each box; 0: none
  dense: DenseRows | None = None  # makes the arrays of annotated points
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The image, the size of the part of the canvas that it covers, and its padded boxes."""
    rows = self.max_boxes
    masks = {"boxes_mask": ShapeDtype((rows, self.mask_size, self.mask_size), np.uint8)}
    return {
      "image": ShapeDtype((*self.fitting.canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "boxes": ShapeDtype((rows, 4), np.float32),
      "boxes_class": ShapeDtype((rows,), np.int32),
      "boxes_crowd": ShapeDtype((rows,), np.bool_),
      "boxes_difficult": ShapeDtype((rows,), np.bool_),
      "boxes_valid": ShapeDtype((rows,), np.bool_),
      **(masks if self.mask_size else {}),
      **(self.dense.elements(rows) if self.dense else {}),
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    opened = decode.open_image(record["image"])
    place = self.fitting.place(*opened.size)
    boxes, kept = self.fitting.boxes(np.asarray(record["boxes"], np.float32).reshape(-1, 4), place)
    if len(kept) > self.max_boxes:
      raise ValueError(
        f"an image has {len(kept)} boxes, but config.host.max_boxes is {self.max_boxes}; "
        f"use {len(kept)} or more"
      )
    rows = {
      "boxes": boxes[kept],
      "boxes_class": np.asarray(record["boxes_class"], np.int32)[kept],
      "boxes_crowd": np.asarray(record["boxes_crowd"], bool)[kept],
      "boxes_difficult": np.asarray(record["boxes_difficult"], bool)[kept],
      "boxes_valid": np.ones(len(kept), bool),
    }
    if self.mask_size:
      rows["boxes_mask"] = self._masks(record["instances"], boxes, kept, place)
    if self.dense:
      rows |= self.dense.rows([record["dense_points"][i] for i in kept], boxes[kept], place)
    padded = {name: _pad_rows(leaf, self.max_boxes) for name, leaf in rows.items()}
    return {"image": self.fitting.image(opened, place), "image_size": place.filled(), **padded}

  def _masks(self, instances, boxes: np.ndarray, kept: np.ndarray, place: Place) -> np.ndarray:
    """uint8[K, mask_size, mask_size]: what the boxes at indices `kept` show of their objects."""
    found = np.zeros((len(kept), self.mask_size, self.mask_size), np.uint8)
    frames = place.origin_of(boxes[kept])
    for row, (i, frame) in enumerate(zip(kept, frames, strict=True)):
      mask = instance_masks.pixels(instances[i])
      check_size(mask, place.full)
      found[row] = instance_masks.crop(mask, frame, self.mask_size)
    return found


@dataclasses.dataclass(frozen=True)
class Stored:
  """Returns the stored elements of a record: for a cached source whose records hold the result of another
  transform.
  """

  elements: Elements
  random: bool = False

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    return {name: record[name] for name in self.elements}


def image(frame: Frame) -> ImageAndLabel:
  """Makes the transform for an image with its class.

  The image is one square from which the device cuts views, or several views that the host cuts.

  Elements: "image" uint8[size, size, 3], or uint8[views, size, size, 3] if the host crops, and "label" i32[],
    -1 if there is none.
  """
  return ImageAndLabel(image_transform(frame))


def image_mask(
  frame: Frame, *, fit: Literal["pad", "crop"] = "pad", height: int = 0, width: int = 0
) -> ImageAndMask:
  """Makes the transform for an image with a class for each pixel.

  Elements: "image" uint8[height, width, 3], "mask" uint8[height, width] and "image_size" i32[2], the (height,
    width) of the upper left part of the canvas that the image covers. The mask is resized by nearest
    neighbour; its padding has the value 255, which means no class.

  Args:
    fit: "pad": an image that exceeds the canvas is reduced until it fits, a smaller image keeps its size, and
      the rest of the canvas is padded at the bottom and on the right; "crop": the image is resized to the
      smallest size that covers the canvas, and its centre is cut out.
    height, width: of the canvas in pixels; 0: `frame.size`.
  Raises: ValueError if the host is to cut views (`frame.views`), for an unknown `fit`, or if a side of the
    canvas is negative.
  """
  return ImageAndMask(make_fit(frame, fit, "image_mask", height, width))


def image_boxes(
  frame: Frame, *, fit: Literal["pad", "crop"] = "pad", max_boxes: int = 100, height: int = 0, width: int = 0
) -> ImageAndBoxes:
  """Makes the transform for an image with the boxes of its objects.

  Elements: "image" and "image_size" as in `image_mask`, and, padded to `max_boxes` rows: "boxes"
    f32[max_boxes, 4] (x1, y1, x2, y2) in continuous pixel coordinates of the canvas, "boxes_class" i32,
    "boxes_crowd" bool (the box encloses a crowd of objects, as in COCO), "boxes_difficult" bool (VOC's
    evaluation does not count the object) and "boxes_valid" bool, False for padding. Boxes are clipped to the
    image, and boxes without an area after clipping are dropped.

  Args:
    fit, height, width: as in `image_mask`.
  Raises: ValueError as `image_mask`, or if `max_boxes` is not positive.
  """
  if max_boxes < 1:
    raise ValueError(f"config.host.max_boxes is {max_boxes}; use a positive number, such as 100")
  return ImageAndBoxes(make_fit(frame, fit, "image_boxes", height, width), max_boxes)


def image_instances(
  frame: Frame,
  *,
  fit: Literal["pad", "crop"] = "pad",
  max_boxes: int = 100,
  mask_size: int = 56,
  height: int = 0,
  width: int = 0,
) -> ImageAndBoxes:
  """Makes the transform for an image with the boxes and the masks of its objects.

  Elements: as in `image_boxes`, and "boxes_mask" uint8[max_boxes, mask_size, mask_size], 1 inside the object:
    the mask in the frame of its box, whose sides become `mask_size` cells each. A cell is inside if at least
    half of it is. A mask of the whole image would take a hundred times the memory.

  Args:
    fit, height, width, max_boxes: as in `image_boxes`.
    mask_size: twice the resolution of a mask head by default (28 in Mask R-CNN), which cuts its targets for
      proposals out of these masks.
  Raises: ValueError as `image_boxes`, or if `mask_size` is not positive.
  """
  if mask_size < 1:
    raise ValueError(f"config.host.mask_size is {mask_size}; use a positive number, such as 56")
  boxes = image_boxes(frame, fit=fit, max_boxes=max_boxes, height=height, width=width)
  return dataclasses.replace(boxes, mask_size=mask_size)


def image_densepose(
  frame: Frame,
  *,
  fit: Literal["pad", "crop"] = "pad",
  max_boxes: int = 100,
  max_points: int = 196,
  segment_size: int = 112,
  symmetry: str = "",
  height: int = 0,
  width: int = 0,
) -> ImageAndBoxes:
  """Makes the transform for an image with people whose surface is annotated.

  Elements: as in `image_boxes`, and for each box, in its frame, whose corners are (0, 0) and (1, 1), padded
    to `max_points` points: "boxes_points" f32[max_boxes, max_points, 2] (x, y), "boxes_points_part" i32 from
    1 to 24, "boxes_points_uv" f32[..., 2] in [0, 1] and "boxes_points_valid" bool; "boxes_segments"
    uint8[max_boxes, segment_size, segment_size], the segment of the body from 1 to 14 and 0 for the
    background; and with `symmetry` "boxes_points_mirrored" f32[..., 2], the U and V that the points have
    after mirroring left and right, without which augmentations refuse to flip. Boxes that are not annotated
    have no valid point.

  Args:
    fit, height, width, max_boxes: as in `image_boxes`.
    max_points: 196, fourteen in each of 14 segments, is the most that DensePose-COCO has.
    segment_size: the resolution of the head's output by default.
    symmetry: path of DensePose's UV_symmetry_transforms.mat, see `body_parts.read_symmetry`, which
      `check_source` reads.
  Raises: ValueError as `image_boxes`, or if a number is not positive.
  """
  for name, value in (("max_points", max_points), ("segment_size", segment_size)):
    if value < 1:
      raise ValueError(f"config.host.{name} is {value}; use a positive number")
  boxes = image_boxes(frame, fit=fit, max_boxes=max_boxes, height=height, width=width)
  return dataclasses.replace(boxes, dense=DenseRows(max_points, segment_size, symmetry))


TRANSFORMS = {f.__name__: f for f in (image, image_mask, image_boxes, image_instances, image_densepose)} | {
  f.__name__: f
  for f in (clip_transforms.frame, clip_transforms.frames, image_bits, stored_frames.stored_frames)
}
# the fields of a record that a transform needs, if these are not the image alone
NEEDS = {
  "image_mask": ("image", "mask"),
  "image_boxes": ("image", "boxes"),
  "image_instances": ("image", "boxes", "instances"),
  "image_densepose": ("image", "boxes", "dense_points"),
  "frame": ("clip",),
  "frames": ("clip",),
  "image_bits": ("image", "bits", "clip_name"),
  "stored_frames": ("frames", "clip_name"),
}


def one_image(pixels: transforms.ImageTransform, source: Source) -> Transform:
  """Makes the transform of a source's records into one image each: of clips, the frame in the middle."""
  made = {"frame": clip_transforms.middle_frame, "stored_frames": stored_frames.MiddleOfStored}
  return made.get(_simplest(source), ImageAndLabel)(pixels)


def known() -> list[str]:
  """Names of all host transforms, sorted."""
  return sorted(TRANSFORMS)


def factory(name: str) -> Callable[..., Transform]:
  """Returns the factory `(frame, *, options...) -> Transform` of this name.

  Raises: ValueError for an unknown name, with the nearest known ones.
  """
  if name not in TRANSFORMS:
    raise ValueError(f"config.host.name: no host transform is called {name!r}{nearest(name, known())}")
  return TRANSFORMS[name]


def make(name: str, frame: Frame, **options) -> Transform:
  """Builds the host transform called `name`.

  Raises: ValueError for an unknown name, or an option that is unknown or of the wrong type, with the nearest
    known ones.
  """
  return call_checked(factory(name), options, "config.host", frame)


def check_source(name: str, transform: Transform, source: Source) -> None:
  """Checks that the records of a source fit a host transform.

  Raises: ValueError if they lack a field that it needs, or have more boxes or points than it has rows, or if
    a file that it needs cannot be read.
  """
  missing = [field for field in NEEDS.get(name, ("image",)) if field not in source.fields]
  if missing:
    raise ValueError(
      f"config.host.name is {name!r}, which needs {' and '.join(map(repr, missing))} in every record, but "
      f"the data set has only {', '.join(source.fields)}; use another config.data.name, or "
      f"config.host.name={_simplest(source)!r}"
    )
  rows = transform.elements["boxes"].shape[0] if "boxes" in transform.elements else 0
  if rows and source.most_rows.get("boxes", 0) > rows:
    most = source.most_rows["boxes"]
    raise ValueError(
      f"an image of the data set has {most} boxes, but config.host.max_boxes is {rows}; use {most} or more"
    )
  points, most = transform.elements.get("boxes_points"), source.most_rows.get("points", 0)
  if points is not None and most > points.shape[1]:
    raise ValueError(
      f"an object of the data set has {most} points, but config.host.max_points is {points.shape[1]}; use "
      f"{most} or more"
    )
  if isinstance(transform, ImageAndBoxes) and transform.dense and transform.dense.symmetry:
    body_parts.read_symmetry(transform.dense.symmetry)


def _simplest(source: Source) -> str:
  """The name of the simplest transform of a source's records."""
  if "image" in source.fields:
    return "image"
  return "stored_frames" if "frames" in source.fields else "frame"


def _pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
  return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])
