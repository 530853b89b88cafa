"""RandAugment and random erasing on planes, f32[3, W, H] in [0, 1], for fine-tuning vision transformers.

Each operation computes what Pillow computes on bytes, including the truncation, so that the published
magnitudes keep their meaning. The five geometric operations are one affine map with five matrices. Under
vmap, where every branch of a switch is computed for every image, they therefore cost a single resampling. On
CPU, where a batch is a loop over images, only the operations that were drawn are computed.

Source: Cubuk et al. 2020; the "increasing" operations and their magnitudes as in timm's rand-m9-mstd0.5-inc1,
which MAE's fine-tuning uses; Zhong et al. 2020 (random erasing).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.core import Key

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
FILL = (124.0, 116.0, 104.0)  # ImageNet's mean colour, for pixels outside the image


def rand_augment(
  key: Key,
  planes: jax.Array,
  *,
  magnitude: float = 9.0,
  deviation: float = 0.5,
  operations: int = 2,
  p: float = 0.5,
) -> jax.Array:
  """Draws `operations` of the 15 operations with replacement and applies each with probability `p`.

  Each magnitude is drawn from a normal distribution with mean `magnitude` and standard deviation `deviation`
  and clipped to [0, 10]. Both signs are equally likely, and so are bilinear and bicubic interpolation in the
  geometric operations.

  Args:
    planes: f32[3, W, H] in [0, 1].
  Returns: f32[3, W, H] in [0, 1], whole grey levels.
  """
  values = jnp.round(planes * 255)
  for operation_key in jax.random.split(key, operations):
    which_key, amount_key, coin_key = jax.random.split(operation_key, 3)
    which = jax.random.randint(which_key, (), 0, len(OPERATIONS))
    amount = jnp.clip(magnitude + deviation * jax.random.normal(amount_key), 0, 10)
    applied, negative, cubic = jax.random.bernoulli(coin_key, jnp.array([p, 0.5, 0.5]))
    drawn = functools.partial(operate, which=which, amount=amount, negative=negative, cubic=cubic)
    values = lax.cond(applied, drawn, lambda v: v, values)
  return values / 255


def operate(values: jax.Array, which, amount, negative, cubic) -> jax.Array:
  """Applies one operation of OPERATIONS to grey levels f32[3, W, H], whole numbers from 0 to 255.

  Args:
    which: i32[], the index of the operation in OPERATIONS.
    amount: f32[], its magnitude in [0, 10].
    negative: bool[], the sign of the magnitude, for the operations that have one.
    cubic: bool[], bicubic instead of bilinear interpolation, for the geometric operations.
  """
  branches = [functools.partial(colour, amount=amount, negative=negative) for colour in _COLOURS.values()]
  geometry = lambda v: affine(v, _matrix(which - len(branches), amount, negative, v.shape), cubic)
  return lax.switch(jnp.minimum(which, len(branches)), [*branches, geometry], values)


def random_erase(
  key: Key,
  planes: jax.Array,
  *,
  p: float,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  attempts: int = 10,
) -> jax.Array:
  """Replaces a random rectangle by noise with probability `p`.

  The noise is N(0, 1) for each value after the network has normalised the image. The rectangle covers a
  fraction U(0.02, 1/3) of the area and the logarithm of its aspect ratio is U(log 0.3, log(1 / 0.3)). The
  first of `attempts` draws that fits is taken; if none fits, nothing is erased.

  Args:
    planes: f32[3, W, H] in [0, 1].
    mean, std: the network's normalisation of pixels in [0, 1].
  """
  coin_key, unit_key, noise_key = jax.random.split(key, 3)
  _, width, height = planes.shape
  unit = jax.random.uniform(unit_key, (4, attempts))
  area = width * height * (0.02 + unit[0] * (1 / 3 - 0.02))
  aspect = jnp.exp(math.log(0.3) + unit[1] * 2 * math.log(1 / 0.3))
  h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  fits = (h < height) & (w < width)
  first = jnp.argmax(fits)
  top, left = jnp.floor(unit[2] * (height - h + 1))[first], jnp.floor(unit[3] * (width - w + 1))[first]
  x, y = (
    jnp.arange(width, dtype=jnp.float32)[None, :, None],
    jnp.arange(height, dtype=jnp.float32)[None, None, :],
  )
  inside = (x >= left) & (x < left + w[first]) & (y >= top) & (y < top + h[first])
  noise = jax.random.normal(noise_key, planes.shape)
  shape = lambda numbers: jnp.asarray(numbers, jnp.float32)[:, None, None]
  return jnp.where(
    inside & fits.any() & jax.random.bernoulli(coin_key, p), shape(mean) + shape(std) * noise, planes
  )


def affine(values: jax.Array, matrix: jax.Array, cubic) -> jax.Array:
  """Computes Pillow's Image.transform(AFFINE).

  Output pixel (x, y) reads the input at the position `matrix` @ (x + 1/2, y + 1/2, 1).

  Args:
    values: f32[3, W, H], whole grey levels.
    matrix: f32[2, 3].
    cubic: bool[], whether to interpolate with Keys' cubic, a = -1, instead of bilinearly.
  Returns: f32[3, W, H], whole grey levels; FILL where the position lies outside the image.
  """
  _, width, height = values.shape
  x, y = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) + 0.5 for n in (width, height)), indexing="ij")
  at_x, at_y = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(2))
  outside = (at_x < 0) | (at_x >= width) | (at_y < 0) | (at_y >= height)
  columns, rows = _taps(at_x, width, cubic), _taps(at_y, height, cubic)
  total = sum(wx * wy * values[:, ix, iy] for ix, wx in columns for iy, wy in rows)
  fill = jnp.asarray(FILL)[:, None, None]
  return jnp.where(outside[None], fill, jnp.floor(jnp.clip(total + 1e-4, 0, 255)))


def _taps(at: jax.Array, size: int, cubic) -> list[tuple[jax.Array, jax.Array]]:
  """Returns four neighbours along one side, i32[W, H] each, and their weights f32[1, W, H].

  For bilinear interpolation the outer two weights are 0.
  """
  first = jnp.floor(at - 0.5)
  d = at - 0.5 - first
  far = lambda t: ((-t + 5) * t - 8) * t + 4
  near = lambda t: (t - 2) * t * t + 1
  weights = jnp.where(
    cubic,
    jnp.stack([far(1 + d), near(d), near(1 - d), far(2 - d)]),
    jnp.stack([jnp.zeros_like(d), 1 - d, d, jnp.zeros_like(d)]),
  )
  return [(jnp.clip(first + i - 1, 0, size - 1).astype(jnp.int32), weights[i][None]) for i in range(4)]


def _matrix(which, amount, negative, shape: tuple[int, ...]) -> jax.Array:
  """Returns the affine matrix f32[2, 3] of the geometric operation with index `which` in GEOMETRIC."""
  _, width, height = shape
  level = jnp.where(negative, -1.0, 1.0) * amount / 10
  one, zero = jnp.ones(()), jnp.zeros(())
  turn = jnp.deg2rad(30 * level)
  cos, sin = jnp.cos(turn), jnp.sin(turn)
  middle = jnp.array([width / 2, height / 2])
  row = lambda *numbers: jnp.stack(numbers)
  about_middle = jnp.stack([row(cos, -sin), row(sin, cos)])
  shift = middle - about_middle @ middle
  matrices = [
    jnp.concatenate([about_middle, shift[:, None]], axis=1),
    jnp.stack([row(one, 0.3 * level, zero), row(zero, one, zero)]),
    jnp.stack([row(one, zero, zero), row(0.3 * level, one, zero)]),
    jnp.stack([row(one, zero, 0.45 * level * width), row(zero, one, zero)]),
    jnp.stack([row(one, zero, zero), row(zero, one, 0.45 * level * height)]),
  ]
  return jnp.stack(matrices)[which]


def _auto_contrast(values, amount, negative):
  low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
  scale = 255 / jnp.maximum(high - low, 1)
  return jnp.where(high > low, jnp.floor(jnp.clip((values - low) * scale + 1e-4, 0, 255)), values)


def _equalize(values, amount, negative):
  histogram = jax.vmap(lambda plane: jnp.zeros(256, jnp.int32).at[plane.astype(jnp.int32).ravel()].add(1))(
    values
  )
  last = values.max((1, 2)).astype(jnp.int32)
  step = (histogram.sum(1) - jnp.take_along_axis(histogram, last[:, None], axis=1)[:, 0]) // 255
  before = jnp.cumsum(histogram, axis=1) - histogram
  table = jnp.where(
    step[:, None] > 0, (step[:, None] // 2 + before) // jnp.maximum(step, 1)[:, None], jnp.arange(256)[None]
  )
  return jax.vmap(lambda table, plane: table[plane.astype(jnp.int32)])(
    jnp.clip(table, 0, 255), values
  ).astype(jnp.float32)


def _invert(values, amount, negative):
  return 255 - values


def _posterize(values, amount, negative):
  # Four bits are kept at magnitude 0 and none at magnitude 10.
  unit = jnp.array([16.0, 32.0, 64.0, 128.0, 256.0])[jnp.floor(0.4 * amount).astype(jnp.int32)]
  return jnp.floor(values / unit) * unit


def _solarize(values, amount, negative):
  return jnp.where(values < 256 - jnp.floor(25.6 * amount), values, 255 - values)


def _solarize_add(values, amount, negative):
  return jnp.where(values < 128, jnp.minimum(values + jnp.minimum(128, jnp.floor(11 * amount)), 255), values)


def _factor(amount, negative):
  return jnp.maximum(0.1, 1 + jnp.where(negative, -0.09, 0.09) * amount)


def _blend(degenerate, values, factor):
  return jnp.floor(jnp.clip(degenerate + factor * (values - degenerate) + 1e-4, 0, 255))


def _luma(values):
  """Returns Pillow's convert("L"), f32[1, W, H] in whole grey levels."""
  red, green, blue = values
  return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)[None]


def _colour(values, amount, negative):
  return _blend(_luma(values), values, _factor(amount, negative))


def _contrast(values, amount, negative):
  return _blend(jnp.floor(_luma(values).mean() + 0.5), values, _factor(amount, negative))


def _brightness(values, amount, negative):
  return _blend(jnp.zeros(()), values, _factor(amount, negative))


def _sharpness(values, amount, negative):
  _, width, height = values.shape
  part = lambda x, y: values[:, x : width - 2 + x, y : height - 2 + y]
  around = sum(part(x, y) for x in range(3) for y in range(3)) + 4 * part(1, 1)
  smooth = values.at[:, 1:-1, 1:-1].set(jnp.floor(around / 13 + 0.5))
  return _blend(smooth, values, _factor(amount, negative))


_COLOURS = {
  "auto_contrast": _auto_contrast,
  "equalize": _equalize,
  "invert": _invert,
  "posterize": _posterize,
  "solarize": _solarize,
  "solarize_add": _solarize_add,
  "colour": _colour,
  "contrast": _contrast,
  "brightness": _brightness,
  "sharpness": _sharpness,
}
OPERATIONS = (*_COLOURS, *GEOMETRIC)
