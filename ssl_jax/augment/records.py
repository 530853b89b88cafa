"""Whole-record augmentation: one random draw moves an image and everything that belongs to its pixels.

A recipe here returns a function `(key, record) -> record` of one example. It moves the entries that it knows
by name, with one draw, and passes the others on:
- "image" uint8 or f32 [H, W, 3] -> f32[size, size, 3] in [0, 1];
- "clip" uint8 or f32 [T, H, W, 3] -> f32[T, size, size, 3]: every frame moves alike;
- "mask" integers [H, W] -> [size, size], of the nearest pixel; 255 where there is no image;
- "boxes" f32[N, 4] (x1, y1, x2, y2) in continuous pixel coordinates, clipped; "boxes_valid" bool[N] becomes
  False where nothing is left of a box; "boxes_mask" uint8[N, m, m] 0 or 1, the mask of the object in the
  frame of its box, is cut out again for the clipped box, and "boxes_valid" becomes False where nothing is
  left of it; the entries of `host.image_densepose`, points and segments in the frames of boxes, see
  `dense_points.move_dense`;
- "points" f32[N, 2] (x, y); "points_valid" bool[N] becomes False for points outside.
"image_size" i32[2], the (height, width) of the upper left part that is not padding, bounds what is read.
It is removed where the padding need not be at the bottom and on the right afterwards; `resize_shorter` keeps
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import colour, crops, dense_points, resample
from ssl_jax.core import Key
from ssl_jax.detect.masks import crop_masks

Record = dict[str, jax.Array]
RecordAugment = Callable[[Key, Record], Record]
Recolour = Callable[[jax.Array], jax.Array]  # planes f32[3, W, H] in [0, 1] -> the same
Relative = Literal["pixels", "fit", "shorter"]
Scale = tuple[float, float]
Size = int | tuple[int, int]  # of the output in pixels: a side, or (height, width)
Colour = tuple[float, float, float]

IGNORE = 255  # the mask value of pixels that belong to no class
ATTEMPTS = 10  # windows of which the first that holds enough classes is taken
COUNTED = 128  # pixels on a side of the copy of the mask on which the classes of a window are counted
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
    window = Window(*rectangle, flip=_random_flip(flip_key, flip, record))
    return move(record, window, size, MEAN, max(_sides(record)) / size)

  return augment


def scale_jitter(
  *,
  size: int = 512,
  scale: Scale = (0.5, 2.0),
  relative: Relative = "pixels",
  largest_class: float = 1.0,
  photometric: bool = False,
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
    relative: what factor 1 means. "pixels": the image keeps its resolution (segmentation of PASCAL VOC and
      Cityscapes, 0.5 to 2); "shorter": its shorter side becomes `size` (segmentation of ADE20K, 0.5 to 2;
      MMSegmentation also bounds the longer side by four times `size`, which images of up to 4:1 do not
      reach); "fit": its longer side becomes `size` (large-scale jitter of detectors, 0.1 to 2).
    largest_class: below 1, of ten places the first is taken where each class covers less than this fraction
      of the window's pixels that have a class, and an eleventh place where none of the ten does so; 0.75 for
      ADE20K. Needs "mask". The classes are counted on a copy of the mask of at most COUNTED pixels a side.
    photometric: whether to change the colours of the image or clip, see `colour.sample_distortion`. The
      padding keeps its colour.
    flip: probability of mirroring left and right.
    fill: colour of the padding, in [0, 1].
  Raises: ValueError for values out of range. The augmentation raises it when it is traced, for a record that
    lacks what it needs.
  Source: Chen et al. 2017 (DeepLab v3), section 4; Ghiasi et al. 2021 (large-scale jitter); MMSegmentation
    (`largest_class` is its cat_max_ratio).
  """
  _check(size, flip)
  if not 0 < scale[0] <= scale[1]:
    raise ValueError(f"config.augment.scale is {scale}; use factors with 0 < least <= greatest")
  if not 0 < largest_class <= 1:
    raise ValueError(
      f"config.augment.largest_class is {largest_class}; use a fraction of the window in (0, 1], such as 0.75"
    )

  def augment(key: Key, record: Record) -> Record:
    scale_key, place_key, flip_key, colour_key = jax.random.split(key, 4)
    bounds = image_size(record).astype(jnp.float32)
    factor = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    side = _unit_side(relative, size, longer=bounds.max(), shorter=bounds.min()) / factor
    largest = _unit_side(relative, size, longer=max(_sides(record)), shorter=min(_sides(record))) / scale[0]
    places = jax.random.uniform(place_key, (1 if largest_class == 1 else ATTEMPTS + 1, 2))
    corners = jnp.maximum(bounds - side, 0)[None] * places
    flipped = _random_flip(flip_key, flip, record)
    windows = [Window(corner[0], corner[1], side, side, flipped) for corner in corners]
    window = windows[0] if len(windows) == 1 else _first_varied(record, windows, size, largest_class)
    if not photometric:
      return move(record, window, size, fill, largest / size)
    drawn = colour.sample_distortion(colour_key)
    return move(record, window, size, fill, largest / size, lambda planes: colour.distort(planes, drawn))

  return augment


def resize_shorter(
  *,
  size: int = 1344,
  height: int = 0,
  shorter: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
  longest: int = 1333,
  flip: float = 0.5,
  fill: Colour = MEAN,
) -> RecordAugment:
  """Resizes the whole record to a random length of its shorter side, then a flip: the training of detectors.

  The image keeps its proportions up to the rounding of its sides to whole pixels. It lies in the upper left
  corner of a canvas, mirrored or not, and "image_size" is kept: the part that it covers.

  Args:
    size: width of the canvas in pixels.
    height: of the canvas; 0: as its width. An image that does not fit into the canvas is reduced until it
      does. With 1344 x 1344 that happens to no image; 800 x 1344 takes 0.6 of the time, and images in
      portrait format become smaller than published.
    shorter: lengths in pixels, of which one is drawn.
    longest: greatest length of the longer side.
    flip: probability of mirroring left and right.
    fill: colour of the padding, in [0, 1].
  Raises: ValueError for values out of range.
  Source: detectron2's ResizeShortestEdge and RandomFlip; the lengths are those of MoCo's VOC protocol.
  """
  _check(size, flip)
  if height < 0:
    raise ValueError(
      f"config.augment.height is {height}; use a number of pixels, or 0 for config.augment.size"
    )
  for name, value in (("shorter", min(shorter, default=0)), ("longest", longest)):
    if value < 1:
      raise ValueError(f"config.augment.{name} must be positive lengths in pixels, but has {value}; use 800")
  canvas = (height or size, size)

  def augment(key: Key, record: Record) -> Record:
    shorter_key, flip_key = jax.random.split(key)
    bounds = image_size(record)
    found = jax.random.choice(shorter_key, jnp.asarray(shorter, jnp.float32))
    resized = resized_sides(bounds, found, longest, canvas)
    flipped = _random_flip(flip_key, flip, record)
    down, across = jnp.asarray(canvas, jnp.float32) * bounds.astype(jnp.float32) / resized.astype(jnp.float32)
    left = jnp.where(
      flipped, bounds[1].astype(jnp.float32) - across, 0.0
    )  # then the mirrored image begins in the first column
    window = Window(jnp.zeros(()), left, down, across, flipped)
    # At least 1 / factor; the rounding of the sides adds a little.
    most = [side / length for side, length in zip(_sides(record), canvas)]
    most += [min(_sides(record)) / min(shorter), max(_sides(record)) / longest]
    largest = 1.1 * max(most)
    return {**move(record, window, canvas, fill, largest), "image_size": resized}

  return augment


def _random_flip(key: Key, flip: float, record: Record) -> jax.Array:
  """bool[]. Raises ValueError for a record that must not be mirrored, see `dense_points.check_flip`."""
  dense_points.check_flip(record, flip)
  return jax.random.bernoulli(key, flip)


def resized_sides(bounds: jax.Array, shorter: jax.Array, longest: int, canvas: tuple[int, int]) -> jax.Array:
  """i32[2]: (height, width) of an image of i32[2] whose shorter side becomes `shorter`, its longer one at
  most `longest`, and which fits into the canvas (height, width).
  """
  sides = bounds.astype(jnp.float32)
  factor = jnp.minimum(shorter / sides.min(), longest / sides.max())
  factor = jnp.minimum(factor, (jnp.asarray(canvas, jnp.float32) / sides).min())
  return jnp.clip(jnp.floor(sides * factor + 0.5).astype(jnp.int32), 1, jnp.asarray(canvas, jnp.int32))


RECORDS = {f.__name__: f for f in (record_crop, scale_jitter, resize_shorter)}


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


def _first_varied(record: Record, windows: list[Window], size: int, limit: float) -> Window:
  """The first window in which each class covers less than `limit` of the pixels that have one; or the last.

  Raises: ValueError for a record without a mask.
  """
  if "mask" not in record:
    raise ValueError(
      f"config.augment.largest_class is {limit:g}, but the records have no 'mask' to count classes in, only "
      f"{', '.join(sorted(record))}; use largest_class 1, or data with masks"
    )
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *windows)
  bounds, counted = image_size(record), min(size, COUNTED)

  def covers(window: Window) -> jax.Array:
    classes = move_mask(record["mask"], window, bounds, counted).ravel().astype(jnp.int32)
    counts = jnp.zeros(IGNORE, jnp.int32).at[classes].add(1, mode="drop")  # drops IGNORE
    return counts.max() / jnp.maximum(counts.sum(), 1)

  covered = jax.vmap(covers)(jax.tree.map(lambda leaf: leaf[:-1], stacked))
  fits = (covered > 0) & (covered < limit)
  chosen = jnp.where(fits.any(), jnp.argmax(fits), len(windows) - 1)
  return jax.tree.map(lambda leaf: leaf[chosen], stacked)


def _unit_side(relative: Relative, size: int, *, longer, shorter):
  """The number of pixels that become `size` pixels at factor 1, in an image of such sides."""
  return {"pixels": size, "fit": longer, "shorter": shorter}[relative]


def _sides(record: Record) -> tuple[int, ...]:
  """The (height, width) of the record's arrays in pixels, padding included."""
  name = next(name for name in ("image", "clip", "mask") if name in record)
  shape = record[name].shape
  return shape[1:3] if name == "clip" else shape[:2]


def _check(size: int, flip: float) -> None:
  if size < 1:
    raise ValueError(f"config.augment.size is {size}; use at least 1")
  if not 0 <= flip <= 1:
    raise ValueError(f"config.augment.flip is {flip}; use a probability in [0, 1]")
