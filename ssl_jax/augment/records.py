"""Whole-record augmentation: one random draw moves an image and everything that belongs to its pixels.

A recipe here returns a function `(key, record) -> record` of one example. It moves the entries that it knows
by name, with one draw, and passes the others on:
- "image" uint8 or f32 [H, W, 3] -> f32[size, size, 3] in [0, 1];
- "clip" uint8 or f32 [T, H, W, 3] -> f32[T, size, size, 3]: every frame moves alike;
- "mask" integers [H, W] -> [size, size], of the nearest pixel; 255 where there is no image;
- "boxes" f32[N, 4] (x1, y1, x2, y2) in continuous pixel coordinates, clipped; "boxes_valid" bool[N] becomes
  False where nothing is left of a box;
- "points" f32[N, 2] (x, y); "points_valid" bool[N] becomes False for points outside.
"image_size" i32[2], the (height, width) of the upper left part that is not padding, bounds what is read, and
is
removed: afterwards the padding is not at the bottom and on the right only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import crops, resample
from ssl_jax.core import Key

Record = dict[str, jax.Array]
RecordAugment = Callable[[Key, Record], Record]
Scale = tuple[float, float]
Colour = tuple[float, float, float]

IGNORE = 255  # the mask value of pixels that belong to no class
MEAN = (0.485, 0.456, 0.406)  # of ImageNet: an encoder that subtracts it sees zeros


class Window(NamedTuple):
  """The rectangle of the input that becomes the output, in continuous pixel coordinates, f32[] each.

  It may extend beyond the image.
  """

  top: jax.Array
  left: jax.Array
  height: jax.Array
  width: jax.Array
  flip: jax.Array  # bool[]: mirror left and right


def record_crop(
  *,
  size: int = 224,
  scale: Scale = (0.08, 1.0),
  sampler: Literal["pt", "tf", "byol"] = "pt",
  flip: float = 0.5,
) -> RecordAugment:
  """A random-resized crop, then a flip.

  Args:
    size: side of the result in pixels.
    scale: smallest and largest fraction of the image's area that a crop covers.
    sampler: see `crops.SAMPLERS`.
    flip: probability of mirroring left and right.
  Raises: ValueError for values out of range.
  """
  _check(size, flip)
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(
      f"config.augment.scale is {scale}; use fractions of the area with 0 < least <= most <= 1"
    )

  def augment(key: Key, record: Record) -> Record:
    box_key, flip_key = jax.random.split(key)
    height, width = image_size(record)
    box = crops.SAMPLERS[sampler](box_key, height, width, scale=scale)
    rectangle = [side.astype(jnp.float32) for side in box]
    window = Window(*rectangle, flip=jax.random.bernoulli(flip_key, flip))
    return move(record, window, size, MEAN, _longest(record) / size)

  return augment


def scale_jitter(
  *,
  size: int = 512,
  scale: Scale = (0.5, 2.0),
  relative: Literal["pixels", "fit"] = "pixels",
  flip: float = 0.5,
  fill: Colour = MEAN,
) -> RecordAugment:
  """Scales the image by a random factor, cuts a window of `size` x `size` out of it and pads what is missing,
  then a flip.

  Where the scaled image is larger than the window, the window's place is uniform; otherwise the image lies in
  the upper left corner.

  Args:
    size: side of the result in pixels.
    scale: least and greatest factor, drawn uniformly.
    relative: what factor 1 means. "pixels": the image keeps its resolution (segmentation, 0.5 to 2); "fit":
      its longer side becomes `size` (large-scale jitter of detectors, 0.1 to 2).
    flip: probability of mirroring left and right.
    fill: colour of the padding, in [0, 1].
  Raises: ValueError for values out of range.
  Source: Chen et al. 2017 (DeepLab v3), section 4; Ghiasi et al. 2021 (large-scale jitter).
  """
  _check(size, flip)
  if not 0 < scale[0] <= scale[1]:
    raise ValueError(f"config.augment.scale is {scale}; use factors with 0 < least <= greatest")

  def augment(key: Key, record: Record) -> Record:
    scale_key, place_key, flip_key = jax.random.split(key, 3)
    height, width = (side.astype(jnp.float32) for side in image_size(record))
    factor = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    side = size / factor
    if relative == "fit":
      side = jnp.maximum(height, width) / factor
    place = jax.random.uniform(place_key, (2,))
    top, left = (jnp.maximum(full - side, 0) * at for full, at in zip((height, width), place, strict=True))
    window = Window(top, left, side, side, jax.random.bernoulli(flip_key, flip))
    largest = 1 / scale[0] if relative == "pixels" else _longest(record) / (scale[0] * size)
    return move(record, window, size, fill, largest)

  return augment


RECORDS = {f.__name__: f for f in (record_crop, scale_jitter)}


def image_size(record: Record) -> jax.Array:
  """i32[2]: (height, width) of the part of the record's image, mask or clip that is not padding.

  Raises: ValueError for a record without any of them.
  """
  if "image_size" in record:
    return record["image_size"]
  for name, axis in (("image", 0), ("clip", 1), ("mask", 0)):
    if name in record:
      return jnp.array(record[name].shape[axis : axis + 2], jnp.int32)
  raise ValueError(
    f"the record has no 'image', 'clip' or 'mask' to augment, only {', '.join(sorted(record))}"
  )


def move(record: Record, window: Window, size: int, fill: Colour, largest_scale: float) -> Record:
  """The record as seen through the window, `size` x `size` pixels; see the module's docstring.

  Args:
    fill: colour of what lies outside the image, in [0, 1].
    largest_scale: static upper bound of the window's sides over `size`.
  """
  bounds = image_size(record)
  moved = {name: leaf for name, leaf in record.items() if name != "image_size"}
  if "image" in record:
    moved["image"] = move_image(record["image"], window, bounds, size, fill, largest_scale)
  if "clip" in record:
    one = lambda frame: move_image(frame, window, bounds, size, fill, largest_scale)
    moved["clip"] = jax.vmap(one)(record["clip"])
  if "mask" in record:
    moved["mask"] = move_mask(record["mask"], window, bounds, size)
  if "boxes" in record:
    moved["boxes"], kept = move_boxes(record["boxes"], window, size)
    moved["boxes_valid"] = kept & record.get("boxes_valid", jnp.array(True))
  if "points" in record:
    moved["points"], kept = move_points(record["points"], window, size)
    moved["points_valid"] = kept & record.get("points_valid", jnp.array(True))
  return moved


def move_image(
  image: jax.Array, window: Window, bounds: jax.Array, size: int, fill: Colour, largest_scale: float
) -> jax.Array:
  """f32[size, size, 3] of uint8 or f32 [H, W, 3]: bilinear and antialiased; pixels beyond the bounds are not
  read.
  """
  fixed = {"size": size, "largest_scale": largest_scale}
  rows, inside_rows = resample.window_taps(window.top, window.height, bound=bounds[0], **fixed)
  columns, inside_columns = resample.window_taps(
    window.left, window.width, bound=bounds[1], flip=window.flip, **fixed
  )
  planes = crops.to_float(image).transpose(2, 0, 1)
  found = crops.planes_to_image(resample.resample(rows, columns, planes))
  inside = (inside_rows[:, None] & inside_columns[None, :])[..., None]
  return jnp.where(inside, found, jnp.asarray(fill, jnp.float32)[None, None])


def move_mask(mask: jax.Array, window: Window, bounds: jax.Array, size: int) -> jax.Array:
  """Integers [size, size] of [H, W]: the value of the nearest pixel, IGNORE beyond the bounds."""
  rows = _places(window.top, window.height, size)
  columns = _places(window.left, window.width, size)
  columns = jnp.where(window.flip, columns[::-1], columns)
  row, column = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
  inside = ((row >= 0) & (row < bounds[0]))[:, None] & ((column >= 0) & (column < bounds[1]))[None, :]
  row, column = jnp.clip(row, 0, mask.shape[0] - 1), jnp.clip(column, 0, mask.shape[1] - 1)
  return jnp.where(inside, mask[row][:, column], jnp.asarray(IGNORE, mask.dtype))


def move_boxes(boxes: jax.Array, window: Window, size: int) -> tuple[jax.Array, jax.Array]:
  """(Boxes f32[N, 4] clipped to the output, bool[N]: something is left)."""
  first, second = (_move(boxes[:, i : i + 2], window, size) for i in (0, 2))
  x1, x2 = jnp.minimum(first[:, 0], second[:, 0]), jnp.maximum(first[:, 0], second[:, 0])
  moved = jnp.stack([x1, first[:, 1], x2, second[:, 1]], 1).clip(0, size)
  return moved, (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])


def move_points(points: jax.Array, window: Window, size: int) -> tuple[jax.Array, jax.Array]:
  """(Points f32[N, 2] in the output's coordinates, bool[N]: they lie inside)."""
  moved = _move(points, window, size)
  return moved, ((moved >= 0) & (moved <= size)).all(1)


def _move(points: jax.Array, window: Window, size: int) -> jax.Array:
  """(x, y) f32[N, 2] of the input in the output's coordinates."""
  x = (points[:, 0] - window.left) * (size / window.width)
  y = (points[:, 1] - window.top) * (size / window.height)
  return jnp.stack([jnp.where(window.flip, size - x, x), y], 1)


def _places(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
  """f32[size]: where the centres of the output's pixels lie in the input."""
  return start + (jnp.arange(size, dtype=jnp.float32) + 0.5) * (length / size)


def _longest(record: Record) -> int:
  """The longer side of the record's arrays in pixels."""
  name = next(name for name in ("image", "clip", "mask") if name in record)
  shape = record[name].shape
  return max(shape[1:3] if name == "clip" else shape[:2])


def _check(size: int, flip: float) -> None:
  if size < 1:
    raise ValueError(f"config.augment.size is {size}; use at least 1")
  if not 0 <= flip <= 1:
    raise ValueError(f"config.augment.flip is {flip}; use a probability in [0, 1]")
