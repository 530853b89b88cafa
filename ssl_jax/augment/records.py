"""Whole-record augmentation: one random draw moves an image and everything that belongs to its pixels.

A recipe here returns a function `(key, record) -> record` of one example; `record_moves` says which entries
of a record are moved.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax.augment import crops
from ssl_jax.augment.object_crop import object_crop
from ssl_jax.augment.record_draws import RecordAugment, Scale, check, random_colours, random_flip
from ssl_jax.augment.record_moves import (
  IGNORE,
  MEAN,
  Colour,
  Record,
  Window,
  image_size,
  move,
  move_mask,
  sides,
)
from ssl_jax.augment.transition_crop import transition_crop
from ssl_jax.core import Key

Relative = Literal["pixels", "fit", "shorter"]

ATTEMPTS = 10  # windows of which the first that holds enough classes is taken
COUNTED = 128  # pixels on a side of the copy of the mask on which the classes of a window are counted


def record_crop(
  *,
  size: int = 224,
  scale: Scale = (0.08, 1.0),
  sampler: Literal["pt", "tf", "byol"] = "pt",
  flip: float = 0.5,
  photometric: bool = False,
  each_frame: bool = False,
) -> RecordAugment:
  """A random-resized crop, then a flip.

  Args:
    size: side of the result in pixels.
    scale: smallest and largest fraction of the image's area that a crop covers.
    sampler: see `crops.SAMPLERS`.
    flip: probability of mirroring left and right.
    photometric: whether to change the colours of the image or clip, see `colour.sample_distortion`.
    each_frame: whether every frame of a clip has draws of its own, as the patches of tracks have.
  Raises: ValueError for values out of range. The augmentation raises it when it is traced, for `each_frame`
    and a record that has something else than a clip to move.
  """
  check(size, flip)
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(
      f"config.augment.scale is {scale}; use fractions of the area with 0 < least <= most <= 1"
    )

  def augment(key: Key, record: Record) -> Record:
    box_key, flip_key = jax.random.split(key)
    height, width = image_size(record)
    box = crops.SAMPLERS[sampler](box_key, height, width, scale=scale)
    rectangle = [side.astype(jnp.float32) for side in box]
    window = Window(*rectangle, flip=random_flip(flip_key, flip, record))
    recolour = random_colours(jax.random.fold_in(key, 2), photometric)  # 0 and 1 are the halves of the key
    return move(record, window, size, MEAN, max(sides(record)) / size, recolour)

  return _for_each_frame(augment) if each_frame else augment


def scale_jitter(
  *,
  size: int = 512,
  height: int = 0,
  scale: Scale = (0.5, 2.0),
  relative: Relative = "pixels",
  largest_class: float = 1.0,
  photometric: bool = False,
  flip: float = 0.5,
  fill: Colour = MEAN,
) -> RecordAugment:
  """Scales the image by a random factor, cuts a window out of it and pads what is missing, then a flip.

  Where the scaled image is larger than the window, the window's place is uniform; otherwise the image lies in
  the upper left corner.

  Args:
    size: side of the result in pixels, or its width.
    height: of the result in pixels; 0: as its width.
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
  check(size, flip)
  canvas = (_height(height, size), size)
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
    largest = _unit_side(relative, size, longer=max(sides(record)), shorter=min(sides(record))) / scale[0]
    places = jax.random.uniform(place_key, (1 if largest_class == 1 else ATTEMPTS + 1, 2))
    down = side * (canvas[0] / size)
    corners = jnp.maximum(bounds - jnp.stack([down, side]), 0)[None] * places
    flipped = random_flip(flip_key, flip, record)
    windows = [Window(corner[0], corner[1], down, side, flipped) for corner in corners]
    window = windows[0] if len(windows) == 1 else _first_varied(record, windows, canvas, largest_class)
    return move(record, window, canvas, fill, largest / size, random_colours(colour_key, photometric))

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
  check(size, flip)
  for name, value in (("shorter", min(shorter, default=0)), ("longest", longest)):
    if value < 1:
      raise ValueError(f"config.augment.{name} must be positive lengths in pixels, but has {value}; use 800")
  canvas = (_height(height, size), size)

  def augment(key: Key, record: Record) -> Record:
    shorter_key, flip_key = jax.random.split(key)
    bounds = image_size(record)
    found = jax.random.choice(shorter_key, jnp.asarray(shorter, jnp.float32))
    resized = resized_sides(bounds, found, longest, canvas)
    flipped = random_flip(flip_key, flip, record)
    down, across = jnp.asarray(canvas, jnp.float32) * bounds.astype(jnp.float32) / resized.astype(jnp.float32)
    left = jnp.where(
      flipped, bounds[1].astype(jnp.float32) - across, 0.0
    )  # then the mirrored image begins in the first column
    window = Window(jnp.zeros(()), left, down, across, flipped)
    # At least 1 / factor; the rounding of the sides adds a little.
    most = [side / length for side, length in zip(sides(record), canvas)]
    most += [min(sides(record)) / min(shorter), max(sides(record)) / longest]
    largest = 1.1 * max(most)
    return {**move(record, window, canvas, fill, largest), "image_size": resized}

  return augment


def _for_each_frame(augment: RecordAugment) -> RecordAugment:
  """The augmentation of a record of which it moves each frame of the clip by itself."""

  def moved(key: Key, record: Record) -> Record:
    others = sorted({"image", "mask", "boxes", "points"} & set(record))
    if "clip" not in record or others:
      raise ValueError(
        "config.augment.each_frame moves each frame of a clip by itself, but the record has "
        f"{', '.join(others) or 'no clip'}; use each_frame=False"
      )
    keys = jax.random.split(key, len(record["clip"]))
    made = [
      augment(keys[i], {**record, "clip": record["clip"][i : i + 1]}) for i in range(len(record["clip"]))
    ]
    return {**made[0], "clip": jnp.concatenate([one["clip"] for one in made])}

  return moved


def resized_sides(bounds: jax.Array, shorter: jax.Array, longest: int, canvas: tuple[int, int]) -> jax.Array:
  """i32[2]: (height, width) of an image of i32[2] whose shorter side becomes `shorter`, its longer one at
  most `longest`, and which fits into the canvas (height, width).
  """
  sides = bounds.astype(jnp.float32)
  factor = jnp.minimum(shorter / sides.min(), longest / sides.max())
  factor = jnp.minimum(factor, (jnp.asarray(canvas, jnp.float32) / sides).min())
  return jnp.clip(jnp.floor(sides * factor + 0.5).astype(jnp.int32), 1, jnp.asarray(canvas, jnp.int32))


RECORDS = {f.__name__: f for f in (record_crop, scale_jitter, resize_shorter, object_crop, transition_crop)}


def _first_varied(record: Record, windows: list[Window], canvas: tuple[int, int], limit: float) -> Window:
  """The first window in which each class covers less than `limit` of the pixels that have one; or the last.

  Raises: ValueError for a record without a mask.
  """
  if "mask" not in record:
    raise ValueError(
      f"config.augment.largest_class is {limit:g}, but the records have no 'mask' to count classes in, only "
      f"{', '.join(sorted(record))}; use largest_class 1, or data with masks"
    )
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *windows)
  bounds = image_size(record)
  counted = (min(canvas[0], COUNTED), min(canvas[1], COUNTED))

  def covers(window: Window) -> jax.Array:
    classes = move_mask(record["mask"], window, bounds, counted).ravel().astype(jnp.int32)
    counts = jnp.zeros(IGNORE, jnp.int32).at[classes].add(1, mode="drop")  # drops IGNORE
    return counts.max() / jnp.maximum(counts.sum(), 1)

  covered = jax.vmap(covers)(jax.tree.map(lambda leaf: leaf[:-1], stacked))
  fits = (covered > 0) & (covered < limit)
  chosen = jnp.where(fits.any(), jnp.argmax(fits), len(windows) - 1)
  return jax.tree.map(lambda leaf: leaf[chosen], stacked)


def _height(height: int, size: int) -> int:
  if height < 0:
    raise ValueError(
      f"config.augment.height is {height}; use a number of pixels, or 0 for config.augment.size"
    )
  return height or size


def _unit_side(relative: Relative, size: int, *, longer, shorter):
  """The number of pixels that become `size` pixels at factor 1, in an image of such sides."""
  return {"pixels": size, "fit": longer, "shorter": shorter}[relative]
