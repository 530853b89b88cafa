"""Crop boxes and cropping: samplers draw a `Box`, and `crop_resize` crops and resizes it.

A sampler draws all of its attempts at once and takes the first that fits, so there is no loop under jit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import resample
from ssl_jax.augment.colour import clip


class Box(NamedTuple):
  """A rectangle of whole pixels, i32[] each.

  It holds the rows top .. top + height - 1 and the columns left .. left + width - 1.
  """

  top: jax.Array
  left: jax.Array
  height: jax.Array
  width: jax.Array


def sample_crop_pt(
  key: jax.Array,
  height,
  width,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  attempts: int = 10,
) -> Box:
  """Samples a crop box as torchvision's RandomResizedCrop does.

  The area is uniform in `scale` and the logarithm of width / height is uniform in the logarithms of `ratio`.
  The first of `attempts` draws that fits into the image is taken; if none fits, the result is the largest
  centred box with an allowed ratio.

  Args:
    height, width: size of the image in pixels, ints or i32[].
    scale: least and greatest area of the crop, as fractions of the image's area.
    ratio: least and greatest width / height.
  """
  height, width = _float(height), _float(width)
  unit, place = _uniform(key, attempts)
  area, aspect = _draw_area(unit, height, width, scale), _draw_log_ratio(unit, ratio)
  w, h = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
  fallback_w = jnp.minimum(width, jnp.round(height * ratio[1]))
  fallback_h = jnp.minimum(height, jnp.round(width / ratio[0]))
  h, w = _first(fits, h, fallback_h), _first(fits, w, fallback_w)
  top = jnp.where(fits.any(), _integer(place[0], height - h + 1), jnp.floor((height - h) / 2))
  left = jnp.where(fits.any(), _integer(place[1], width - w + 1), jnp.floor((width - w) / 2))
  return _box(top, left, h, w)


def sample_crop_byol(
  key: jax.Array,
  height,
  width,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
  """Samples a crop box as the linear probes of BYOL and MAE do.

  There is a single draw, as in `sample_crop_pt`, and each side is clipped to the image.
  """
  height, width = _float(height), _float(width)
  unit, place = _uniform(key, 1)
  area, aspect = _draw_area(unit, height, width, scale), _draw_log_ratio(unit, ratio)
  w = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, width)[0]
  h = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, height)[0]
  return _box(_integer(place[0], height - h + 1), _integer(place[1], width - w + 1), h, w)


def sample_crop_tf(
  key: jax.Array,
  height,
  width,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  min_covered: float = 0.1,
  attempts: int = 100,
) -> Box:
  """Samples a crop box as SimCLR does: TensorFlow's sample_distorted_bounding_box on the whole image.

  Width / height is uniform in `ratio`; then the height is a uniform integer among those that the area range
  allows, so small areas are more likely than under `sample_crop_pt`. Boxes that cover less than the fraction
  `min_covered` of the image are rejected, so the published lower bound of 0.08 is in effect 0.1. The last
  possible offset is never drawn. If all attempts fail, the box is the whole image.
  """
  height, width = _float(height), _float(width)
  least, most = scale[0] * height * width, scale[1] * height * width
  unit, place = _uniform(key, attempts)
  aspect = ratio[0] + unit[0] * (ratio[1] - ratio[0])
  widest = jnp.floor((width + 0.5 - 1e-4) / aspect)
  tallest = jnp.round(jnp.sqrt(most / aspect))
  tallest = jnp.where(jnp.round(tallest * aspect) > width, widest, tallest)
  tallest = jnp.minimum(tallest, height)
  shortest = jnp.minimum(jnp.round(jnp.sqrt(least / aspect)), tallest)
  h = shortest + _integer(unit[1], tallest - shortest + 1)
  h = jnp.where(h * jnp.round(h * aspect) < least, h + 1, h)
  h = jnp.where(h * jnp.round(h * aspect) > most, h - 1, h)
  w = jnp.round(h * aspect)
  least = jnp.maximum(least, min_covered * height * width)
  fits = (h * w >= least) & (h * w <= most) & (w <= width) & (h <= height) & (w > 0) & (h > 0)
  h, w = _first(fits, h, height), _first(fits, w, width)
  return _box(_integer(place[0], height - h), _integer(place[1], width - w), h, w)


SAMPLERS = {"pt": sample_crop_pt, "tf": sample_crop_tf, "byol": sample_crop_byol}


def sample_global_local(
  key: jax.Array,
  height,
  width,
  *,
  global_scale: tuple[float, float] = (0.4, 1.0),
  local_scale: tuple[float, float] = (0.08, 0.4),
) -> tuple[Box, Box]:
  """Samples a crop box and a second box inside it: (outer, inner).

  The area of the inner box is a fraction in `local_scale` of the area of the outer one. This is one of the
  two relations between random crops (Chen et al. 2020, figure 3a), which otherwise occur by chance.
  """
  outer_key, inner_key = jax.random.split(key)
  outer = sample_crop_pt(outer_key, height, width, scale=global_scale)
  inner = sample_crop_pt(inner_key, outer.height, outer.width, scale=local_scale)
  return outer, inner._replace(top=inner.top + outer.top, left=inner.left + outer.left)


def sample_adjacent(
  key: jax.Array, height, width, *, scale: tuple[float, float] = (0.08, 0.5)
) -> tuple[Box, Box]:
  """Samples two boxes of equal size that share one whole side and no pixel.

  They lie side by side or one above the other, in random order. This is the other relation between random
  crops (Chen et al. 2020, figure 3b). Each box covers a fraction in `scale` of the image's area, with
  width / height from 3/4 to 4/3 as far as the image has room.
  """
  pair_key, side_key = jax.random.split(key)
  beside, swapped = jax.random.bernoulli(side_key, shape=(2,))
  pair_scale = (2 * scale[0], min(1.0, 2 * scale[1]))
  wide = sample_crop_pt(pair_key, height, width, scale=pair_scale, ratio=(3 / 2, 8 / 3))
  tall = sample_crop_pt(pair_key, height, width, scale=pair_scale, ratio=(3 / 8, 2 / 3))
  both = jax.tree.map(lambda a, b: jnp.where(beside, a, b), wide, tall)
  h, w = jnp.where(beside, both.height, both.height // 2), jnp.where(beside, both.width // 2, both.width)
  one = Box(both.top, both.left, h, w)
  two = Box(both.top + jnp.where(beside, 0, h), both.left + jnp.where(beside, w, 0), h, w)
  choose = lambda a, b: jnp.where(swapped, b, a)
  return jax.tree.map(choose, one, two), jax.tree.map(choose, two, one)


def crop_resize(
  image: jax.Array, box: Box, size: int, *, method: str = "bilinear", antialias: bool = True, flip=False
) -> jax.Array:
  """Crops `box` and resizes it to f32[size, size, 3] in [0, 1].

  The result is that of Pillow's crop followed by its resize: no pixel outside the box is read. Without
  `antialias` it is that of TensorFlow 2, whose pixel centres lie at i + 1/2. SimCLR's bicubic resize is the
  same except for this half pixel, which TensorFlow 1 does not add.

  Args:
    image: uint8[H, W, 3], or f32[H, W, 3] in [0, 1].
    box: lies inside the image; may be traced.
    method: "bilinear" (MoCo, torchvision) or "bicubic" (a = -1/2; SimCLR, MAE, BYOL).
    flip: bool[], may be traced: whether to mirror left and right, which costs nothing here.
  """
  return planes_to_image(crop_planes(image, box, (size, size), method=method, antialias=antialias, flip=flip))


def crop_planes(
  image: jax.Array,
  box: Box,
  shape: tuple[int, int],
  *,
  method: str,
  antialias: bool,
  flip: bool | jax.Array = False,
) -> jax.Array:
  """Like `crop_resize`, but to any `shape` (height, width); returns planes f32[3, width, height]."""
  height, width, _ = image.shape
  kernel: dict[str, Any] = dict(method=method, antialias=antialias)
  rows = resample.crop_taps(box.top, box.height, full=height, size=shape[0], **kernel)
  columns = resample.crop_taps(box.left, box.width, full=width, size=shape[1], flip=flip, **kernel)
  if image.dtype == jnp.uint8:
    columns = columns._replace(weight=columns.weight / 255)
  planes = resample.resample(rows, columns, image.transpose(2, 0, 1))
  return clip(planes) if method == "bicubic" else planes


def resize(image: jax.Array, size: int, *, method: str = "bilinear", antialias: bool = True) -> jax.Array:
  """Resizes an image [H, W, 3] such that its shorter side becomes `size`; returns f32 in [0, 1].

  The longer side keeps the aspect ratio, rounded down as in torchvision.
  """
  height, width, _ = image.shape
  shape = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
  whole = Box(*(jnp.asarray(side, jnp.int32) for side in (0, 0, height, width)))
  return planes_to_image(crop_planes(image, whole, shape, method=method, antialias=antialias))


def center_crop(image: jax.Array, size: int) -> jax.Array:
  """Returns the centre [size, size, C] of an image [H, W, C] of any dtype.

  The offsets are rounded as in torchvision.

  Raises: ValueError if the image is smaller than `size`.
  """
  height, width, _ = image.shape
  if size > min(height, width):
    raise ValueError(f"a centre crop of {size} does not fit an image of {height} x {width}; resize it first")
  top, left = round((height - size) / 2), round((width - size) / 2)
  return image[top : top + size, left : left + size]


def evaluation_view(
  image: jax.Array, *, size: int, crop_ratio: float = 0.875, method: str = "bicubic"
) -> jax.Array:
  """Crops the centre square, `crop_ratio` times the shorter side, and resizes it to f32[size, size, 3].

  This is the view for evaluation. A single antialiased resampling both crops and resizes; an image that is
  already [size, size, 3] is only converted. SimCLR's 0.875 equals torchvision's "resize to 256, centre crop
  224" up to rounding.
  """
  height, width, _ = image.shape
  if (height, width) == (size, size):
    return to_float(image)
  side = round(crop_ratio * min(height, width))
  middle = Box(*(jnp.asarray(v, jnp.int32) for v in ((height - side) // 2, (width - side) // 2, side, side)))
  return crop_resize(image, middle, size, method=method)


def to_float(image: jax.Array) -> jax.Array:
  """Converts uint8 to f32 in [0, 1]; f32 is returned as it is."""
  return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def image_to_planes(image: jax.Array) -> jax.Array:
  """Converts an image, uint8 or f32 [H, W, 3], to planes f32[3, W, H] in [0, 1]."""
  return to_float(image.transpose(2, 1, 0))


def planes_to_image(planes: jax.Array) -> jax.Array:
  """Converts planes f32[3, W, H] to an image f32[H, W, 3]."""
  return planes.transpose(2, 1, 0)


def _uniform(key: jax.Array, attempts: int) -> tuple[jax.Array, jax.Array]:
  """Samples uniform numbers: f32[2, attempts] for the shape in each attempt, f32[2] for the place."""
  count = -(-(2 * attempts + 2) // 8) * 8  # a flat array of a multiple of 8 compiles several times faster
  unit = jax.random.uniform(key, (count,))
  return unit[2 : 2 * attempts + 2].reshape(2, attempts), unit[:2]


def _draw_area(unit: jax.Array, height, width, scale: tuple[float, float]) -> jax.Array:
  return height * width * (scale[0] + unit[0] * (scale[1] - scale[0]))


def _draw_log_ratio(unit: jax.Array, ratio: tuple[float, float]) -> jax.Array:
  return jnp.exp(math.log(ratio[0]) + unit[1] * math.log(ratio[1] / ratio[0]))


def _first(fits: jax.Array, values: jax.Array, fallback) -> jax.Array:
  return jnp.where(fits.any(), values[jnp.argmax(fits)], fallback)


def _integer(unit: jax.Array, count) -> jax.Array:
  """Maps a uniform number in [0, 1) to a uniform integer 0 .. count - 1; to 0 if `count` is below 1."""
  return jnp.clip(jnp.floor(unit * count), 0, jnp.maximum(count - 1, 0))


def _float(side) -> jax.Array:
  return jnp.asarray(side, jnp.float32)


def _box(*values) -> Box:
  return Box(*(value.astype(jnp.int32) for value in values))
