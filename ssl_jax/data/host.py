"""Host transforms: each turns a record into named arrays of fixed shapes.

`config.host` holds the name of a transform and its options. A transform declares the arrays that it makes
(`elements`); the pipeline, the cache, the shared buffers and the compiled step derive their shapes from them.
To add a transform, write a factory `(frame, *, options...) -> Transform` and list it in TRANSFORMS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.data import body_parts, clip_transforms, stored_frames, transforms, transitions
from ssl_jax.data.elements import Elements, Record, ShapeDtype, Transform
from ssl_jax.data.fit import Fit, Frame, image_transform, make_fit
from ssl_jax.data.image_bits import image_bits
from ssl_jax.data.mask_values import IGNORE, decode_pair
from ssl_jax.data.object_transforms import ImageAndBoxes, image_boxes, image_densepose, image_instances
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


TRANSFORMS = {f.__name__: f for f in (image, image_mask, image_boxes, image_instances, image_densepose)} | {
  f.__name__: f
  for f in (
    clip_transforms.frame,
    clip_transforms.frames,
    image_bits,
    stored_frames.stored_frames,
    transitions.transition,
  )
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
  "stored_frames": ("frames", "numbers", "clip_name"),
  "transition": ("frames", "action", "expert_action"),
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
