"""Moves an image and everything that belongs to its pixels to what a window shows.

`move` knows these entries of a record by name and passes the others on:
- "image" uint8 or f32 [H, W, 3] -> f32[size, size, 3] in [0, 1];
- "clip" uint8 or f32 [T, H, W, 3] -> f32[T, size, size, 3]: every frame moves alike;
- "mask" integers [H, W] -> [size, size], of the nearest pixel; 255 where there is no image;
- "boxes" f32[N, 4] (x1, y1, x2, y2) in continuous pixel coordinates, clipped; "boxes_valid" bool[N] becomes
  False where nothing is left of a box; "boxes_mask" uint8[N, m, m] 0 or 1, the mask of the object in the
  frame of its box, is cut out again for the clipped box, and "boxes_valid" becomes False where nothing is
  left of it; the entries of `object_transforms.image_densepose`, points and segments in the frames of boxes,
  see `dense_points.move_dense`;
- "points" f32[N, 2] (x, y); "points_valid" bool[N] becomes False for points outside.
"image_size" i32[2], the (height, width) of the upper left part that is not padding, bounds what is read.
It is removed where the padding need not be at the bottom and on the right afterwards; `resize_shorter` keeps
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import crops, dense_points, resample
from ssl_jax.detect.masks import crop_masks

Record = dict[str, jax.Array]
Recolour = Callable[[jax.Array], jax.Array]  # planes f32[3, W, H] in [0, 1] -> the same
Size = int | tuple[int, int]  # of the output in pixels: a side, or (height, width)
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


def move(
  record: Record,
  window: Window,
  size: Size,
  fill: Colour,
  largest_scale: float,
  recolour: Recolour | None = None,
) -> Record:
  """The record as seen through the window; see the module's docstring.

  Args:
    size: of the result.
    fill: colour of what lies outside the image, in [0, 1].
    largest_scale: static upper bound of the window's sides over those of the result.
    recolour: changes the colours of the moved image, and alike those of every frame, but not the padding.
  """
  moved_image = lambda image: move_image(image, window, bounds, size, fill, largest_scale, recolour)
  bounds = image_size(record)
  moved = {name: leaf for name, leaf in record.items() if name not in ("image_size", dense_points.MIRRORED)}
  if "image" in record:
    moved["image"] = moved_image(record["image"])
  if "clip" in record:
    moved["clip"] = jax.vmap(moved_image)(record["clip"])
  if "mask" in record:
    moved["mask"] = move_mask(record["mask"], window, bounds, size)
  if "boxes" in record:
    moved["boxes"], kept = move_boxes(record["boxes"], window, size)
    if "boxes_mask" in record:
      masks = move_box_masks(record["boxes_mask"], record["boxes"], window, size)
      moved["boxes_mask"] = masks
      kept &= masks.any((1, 2)) | ~record["boxes_mask"].any((1, 2))
    if "boxes_points" in record:
      frames = _move_corners(record["boxes"], window, size)
      moved |= dense_points.move_dense(record, frames, moved["boxes"], window.flip)
    moved["boxes_valid"] = kept & record.get("boxes_valid", jnp.array(True))
  if "points" in record:
    moved["points"], kept = move_points(record["points"], window, size)
    moved["points_valid"] = kept & record.get("points_valid", jnp.array(True))
  return moved


def move_image(
  image: jax.Array,
  window: Window,
  bounds: jax.Array,
  size: Size,
  fill: Colour,
  largest_scale: float,
  recolour: Recolour | None = None,
) -> jax.Array:
  """f32[height, width, 3] of uint8 or f32 [H, W, 3]: bilinear and antialiased; pixels beyond the bounds are
  not read. For the arguments see `move`.
  """
  height, width = _height_width(size)
  taps = functools.partial(resample.window_taps, largest_scale=largest_scale)
  rows, inside_rows = taps(window.top, window.height, bound=bounds[0], size=height)
  columns, inside_columns = taps(window.left, window.width, bound=bounds[1], size=width, flip=window.flip)
  planes = crops.to_float(image).transpose(2, 0, 1)
  found = resample.resample(rows, columns, planes)
  found = crops.planes_to_image(recolour(found) if recolour else found)
  inside = (inside_rows[:, None] & inside_columns[None, :])[..., None]
  return jnp.where(inside, found, jnp.asarray(fill, jnp.float32)[None, None])


def move_mask(mask: jax.Array, window: Window, bounds: jax.Array, size: Size) -> jax.Array:
  """Integers [height, width] of [H, W]: the value of the nearest pixel, IGNORE beyond the bounds."""
  height, width = _height_width(size)
  rows = _places(window.top, window.height, height)
  columns = _places(window.left, window.width, width)
  columns = jnp.where(window.flip, columns[::-1], columns)
  row, column = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
  inside = ((row >= 0) & (row < bounds[0]))[:, None] & ((column >= 0) & (column < bounds[1]))[None, :]
  row, column = jnp.clip(row, 0, mask.shape[0] - 1), jnp.clip(column, 0, mask.shape[1] - 1)
  return jnp.where(inside, mask[row][:, column], jnp.asarray(IGNORE, mask.dtype))


def move_boxes(boxes: jax.Array, window: Window, size: Size) -> tuple[jax.Array, jax.Array]:
  """(Boxes f32[N, 4] clipped to the output, bool[N]: something is left)."""
  moved = _clip(_move_corners(boxes, window, size), size)
  return moved, (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])


def move_box_masks(masks: jax.Array, boxes: jax.Array, window: Window, size: Size) -> jax.Array:
  """Masks uint8[N, m, m], 0 or 1, in the frames of boxes f32[N, 4], as masks in those of the moved boxes.

  Where a box is not clipped its mask is unchanged, or mirrored: a frame moves with its box. Otherwise the
  part in the clipped box is cut out and resampled.
  """
  frames = _move_corners(boxes, window, size)
  mirrored = jnp.where(window.flip, masks[:, :, ::-1], masks)
  every = jnp.arange(len(masks))
  found = crop_masks(mirrored, every, _clip(frames, size), size=masks.shape[1], samples=1, frames=frames)
  return found.astype(masks.dtype)


def move_points(points: jax.Array, window: Window, size: Size) -> tuple[jax.Array, jax.Array]:
  """(Points f32[N, 2] in the output's coordinates, bool[N]: they lie inside)."""
  moved = _move(points, window, size)
  return moved, ((moved >= 0) & (moved <= _width_height(size))).all(1)


def _move_corners(boxes: jax.Array, window: Window, size: Size) -> jax.Array:
  """Boxes f32[N, 4] in the output's coordinates, not clipped."""
  first, second = (_move(boxes[:, i : i + 2], window, size) for i in (0, 2))
  x1, x2 = jnp.minimum(first[:, 0], second[:, 0]), jnp.maximum(first[:, 0], second[:, 0])
  return jnp.stack([x1, first[:, 1], x2, second[:, 1]], 1)


def _move(points: jax.Array, window: Window, size: Size) -> jax.Array:
  """(x, y) f32[N, 2] of the input in the output's coordinates."""
  height, width = _height_width(size)
  x = (points[:, 0] - window.left) * (width / window.width)
  y = (points[:, 1] - window.top) * (height / window.height)
  return jnp.stack([jnp.where(window.flip, width - x, x), y], 1)


def _clip(boxes: jax.Array, size: Size) -> jax.Array:
  """Boxes f32[N, 4] clipped to the output."""
  return boxes.clip(0, jnp.tile(_width_height(size), (1, 2)))


def _width_height(size: Size) -> jax.Array:
  """f32[1, 2]."""
  return jnp.asarray(_height_width(size)[::-1], jnp.float32)[None]


def _height_width(size: Size) -> tuple[int, int]:
  return (size, size) if isinstance(size, int) else size


def _places(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
  """f32[size]: where the centres of the output's pixels lie in the input."""
  return start + (jnp.arange(size, dtype=jnp.float32) + 0.5) * (length / size)


def sides(record: Record) -> tuple[int, ...]:
  """The (height, width) of the record's arrays in pixels, padding included."""
  name = next(name for name in ("image", "clip", "mask") if name in record)
  shape = record[name].shape
  return shape[1:3] if name == "clip" else shape[:2]
