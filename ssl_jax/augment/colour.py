"""Colour operations on planes, f32[3, W, H] in [0, 1], colour jitter in a random order, and photometric
distortion.

There are two definitions of contrast and saturation, and each published set of strengths assumes one of them:
"pt" is torchvision's, which blends with the luma; "tf" is TensorFlow's, which scales contrast about each
channel's own mean and saturation in HSV. Every operation clips its result to [0, 1] and has an amount that
changes nothing (factor 1 or shift 0), so "apply with probability p" is implemented by choosing the amount.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DEFINITIONS = ("pt", "tf")
Factors = tuple[float, float]  # least and greatest
_LUMA = {"pt": (0.299, 0.587, 0.114), "tf": (0.2989, 0.5870, 0.1140)}
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


def clip(planes: jax.typing.ArrayLike) -> jax.Array:
  """Clips values to [0, 1]."""
  return jnp.clip(planes, 0.0, 1.0)


def luma(channels: jax.Array, definition: str) -> jax.Array:
  """Returns the grey value of each pixel: f32[3, ...] -> f32[...]."""
  red, green, blue = _LUMA[definition]
  return red * channels[0] + green * channels[1] + blue * channels[2]


def scale_brightness(planes: jax.Array, factor) -> jax.Array:
  """Multiplies the planes by `factor`, f32[]."""
  return clip(planes * factor)


def shift_brightness(planes: jax.Array, shift) -> jax.Array:
  """Adds `shift`, f32[], to the planes."""
  return clip(planes + shift)


def contrast(planes: jax.Array, factor, definition: str) -> jax.Array:
  """Multiplies by `factor`, f32[], the distance to the mean luma ("pt") or to each channel's mean ("tf")."""
  return clip(factor * planes + (1 - factor) * _contrast_zero(planes, definition))


def _contrast_zero(planes: jax.Array, definition: str) -> jax.Array:
  """Returns the planes at contrast 0: the mean luma f32[1, 1, 1] (pt) or channel means f32[3, 1, 1] (tf)."""
  means = planes.mean((1, 2), keepdims=True)
  return means if definition == "tf" else luma(means, definition)[None]


def saturation(planes: jax.Array, factor, definition: str) -> jax.Array:
  """Blends with each pixel's luma ("pt") or multiplies the S of HSV ("tf"); `factor` is f32[]."""
  if definition == "pt":
    return clip(factor * planes + (1 - factor) * luma(planes, definition)[None])
  # In HSV, V and H are kept and S' = min(factor S, 1): each channel's distance below V is proportional to S.
  largest = planes.max(0, keepdims=True)
  chroma = largest - planes.min(0, keepdims=True)
  growth = jnp.minimum(factor, largest / jnp.where(chroma == 0, 1.0, chroma))
  return clip(largest - (largest - planes) * growth)


def grayscale(planes: jax.Array, definition: str) -> jax.Array:
  """Replaces all three channels by the luma."""
  return jnp.broadcast_to(luma(planes, definition)[None], planes.shape)


def grayscale_if(applied: jax.Array, planes: jax.Array, definition: str) -> jax.Array:
  """Returns `grayscale` of the planes if `applied`, bool[], is true; otherwise the planes."""
  return _if(applied, lambda x: grayscale(x, definition), planes)


def _if(applied: jax.Array, operation, planes: jax.Array) -> jax.Array:
  """Returns the result of the operation if `applied`, bool[], is true; otherwise the planes.

  On CPU, where a batch is a loop over images, an operation that does not apply is not computed.
  """
  return lax.platform_dependent(
    applied,
    planes,
    cpu=lambda a, x: lax.cond(a, operation, lambda x: x, x),
    default=lambda a, x: jnp.where(a, operation(x), x),
  )


# For a hue in [0, 6), (channel - minimum) / chroma = clip(bias + sign |hue - peak|, 0, 1) for each channel.
_PEAK = np.array([3.0, 2.0, 4.0], np.float32)[:, None, None]
_SIGN = np.array([1.0, -1.0, -1.0], np.float32)[:, None, None]
_BIAS = np.array([-1.0, 2.0, 2.0], np.float32)[:, None, None]


def hue(planes: jax.Array, turns) -> jax.Array:
  """Rotates the H of HSV by `turns`, f32[], of a full circle and keeps S and V; "pt" and "tf" agree here."""
  red, green, blue = planes[0], planes[1], planes[2]
  largest = jnp.maximum(jnp.maximum(red, green), blue)
  smallest = jnp.minimum(jnp.minimum(red, green), blue)
  chroma = largest - smallest
  unit = 1 / jnp.where(chroma == 0, 1.0, chroma)
  sextant = jnp.where(
    largest == red,
    (green - blue) * unit,
    jnp.where(largest == green, 2 + (blue - red) * unit, 4 + (red - green) * unit),
  )
  sextant = sextant + 6 * turns
  sextant = sextant - 6 * jnp.floor(sextant / 6)
  height = clip(_BIAS + _SIGN * jnp.abs(sextant[None] - _PEAK))
  return clip(smallest[None] + chroma[None] * height)


class Jitter(NamedTuple):
  """The order and the amounts of one colour jitter, as drawn by `sample_jitter`."""

  order: jax.Array  # i32[4], a permutation: 0 brightness, 1 contrast, 2 saturation, 3 hue
  brightness: jax.Array  # f32[]: a factor, or the shift of additive brightness
  contrast: jax.Array  # f32[]: factor
  saturation: jax.Array  # f32[]: factor
  hue: jax.Array  # f32[]: fraction of a full circle


def sample_jitter(
  key: jax.Array,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
  p: float = 1.0,
  additive: bool = False,
) -> Jitter:
  """Samples the order and the amounts of a colour jitter; with probability 1 - `p` they change nothing.

  The order is a uniform permutation. For a strength a, factors are U(max(0, 1 - a), 1 + a) and shifts (hue,
  and brightness if `additive`) are U(-a, a).
  """
  unit = jax.random.uniform(key, (8,))
  applied = unit[0] < p
  factor = lambda u, a: jnp.where(applied, max(0.0, 1 - a) + u * (1 + a - max(0.0, 1 - a)), 1.0)
  shift = lambda u, a: jnp.where(applied, (2 * u - 1) * a, 0.0)
  order = jnp.asarray(_ORDERS)[(unit[5] * len(_ORDERS)).astype(jnp.int32)]
  return Jitter(
    order,
    (shift if additive else factor)(unit[1], brightness),
    factor(unit[2], contrast),
    factor(unit[3], saturation),
    shift(unit[4], hue),
  )


def jitter(planes: jax.Array, draw: Jitter, *, definition: str, additive: bool = False) -> jax.Array:
  """Applies the four operations to planes f32[3, W, H] in the drawn order, each clipped to [0, 1].

  On CPU, where a batch is a loop over images, only the operations that were drawn are computed. Other
  platforms compute the same operations for every image of the batch, although the orders differ: three slots
  before a single evaluation of hue and three after it. A slot has neutral amounts where the order of an image
  leaves it empty.
  """
  return lax.platform_dependent(
    planes,
    draw,
    cpu=lambda x, d: _jitter_by_switch(x, d, definition, additive),
    default=lambda x, d: _jitter_in_slots(x, d, definition, additive),
  )


def _jitter_by_switch(planes: jax.Array, draw: Jitter, definition: str, additive: bool) -> jax.Array:
  operations = (
    lambda x: (shift_brightness if additive else scale_brightness)(x, draw.brightness),
    lambda x: contrast(x, draw.contrast, definition),
    lambda x: saturation(x, draw.saturation, definition),
    lambda x: hue(x, draw.hue),
  )
  unchanged = (draw.brightness == (0 if additive else 1)) & (draw.contrast == 1)
  unchanged = unchanged & (draw.saturation == 1) & (draw.hue == 0)

  def apply(planes):
    for step in range(4):  # unrolled: a compiled loop would copy the image in every iteration
      planes = lax.switch(draw.order[step], operations, planes)
    return planes

  return lax.cond(unchanged, lambda x: x, apply, planes)


def _jitter_in_slots(planes: jax.Array, draw: Jitter, definition: str, additive: bool) -> jax.Array:
  hue_at = jnp.argmax(draw.order == _HUE)

  def slot(i: int, active: jax.Array, planes: jax.Array) -> jax.Array:
    amount = lambda which, value, neutral: jnp.where(active & (draw.order[i] == which), value, neutral)
    return _apply_one(
      planes,
      amount(_BRIGHTNESS, draw.brightness, 0.0 if additive else 1.0),
      amount(_CONTRAST, draw.contrast, 1.0),
      amount(_SATURATION, draw.saturation, 1.0),
      definition,
      additive,
    )

  for i in range(3):
    planes = slot(i, i < hue_at, planes)
  planes = hue(planes, draw.hue)
  for i in range(1, 4):
    planes = slot(i, i > hue_at, planes)
  return planes


def _apply_one(planes, brightness, contrast, saturation_, definition, additive) -> jax.Array:
  """Applies brightness, contrast or saturation as one affine map and clip.

  At most one of the three has an amount that is not neutral.
  """
  factor, shift = (contrast, brightness) if additive else (contrast * brightness, 0.0)
  blended = factor * planes + (1 - contrast) * _contrast_zero(planes, definition) + shift
  if definition == "tf":
    return saturation(clip(blended), saturation_, definition)
  return clip(saturation_ * blended + (1 - saturation_) * luma(planes, definition)[None])


class Distortion(NamedTuple):
  """The amounts of one photometric distortion, as drawn by `sample_distortion`."""

  brightness: jax.Array  # f32[]: shift
  contrast: jax.Array  # f32[]: factor of all values, not of the distance to a mean
  contrast_first: jax.Array  # bool[]: contrast comes before saturation and hue, or after them
  saturation: jax.Array  # f32[]: factor of the S of HSV
  hue: jax.Array  # f32[]: fraction of a full circle


def sample_distortion(
  key: jax.Array,
  *,
  brightness: float = 32 / 255,
  contrast: Factors = (0.5, 1.5),
  saturation: Factors = (0.5, 1.5),
  hue: float = 0.1,
  p: float = 0.5,
) -> Distortion:
  """Samples the amounts of MMSegmentation's PhotoMetricDistortion; each changes nothing with probability
  1 - `p`.

  Shifts are U(-a, a), factors are uniform in their range, and a fair coin decides when contrast comes. The
  published hue_delta of 18 counts the 180 steps of two degrees that OpenCV's 8-bit hue has: it is a tenth of
  the circle, 36 degrees. There, every operation ends in whole grey levels, rounded down, hue and saturation
  are whole 8-bit numbers too, and the turn is one of the integers -18 to 17; here nothing is rounded.
  Source: MMSegmentation, after the augmentation of SSD (Liu et al. 2016).
  """
  unit = jax.random.uniform(key, (9,))
  shift = lambda i, a: jnp.where(unit[i] < p, (2 * unit[i + 4] - 1) * a, 0.0)
  factor = lambda i, a: jnp.where(unit[i] < p, a[0] + unit[i + 4] * (a[1] - a[0]), 1.0)
  return Distortion(
    shift(0, brightness), factor(1, contrast), unit[8] < 0.5, factor(2, saturation), shift(3, hue)
  )


def distort(planes: jax.Array, draw: Distortion) -> jax.Array:
  """Applies brightness, contrast, saturation and hue to planes f32[3, W, H], in this order or with contrast
  at the end; each clips its result to [0, 1].
  """
  planes = shift_brightness(planes, draw.brightness)
  planes = scale_brightness(planes, jnp.where(draw.contrast_first, draw.contrast, 1.0))
  planes = _if(draw.saturation != 1, lambda x: saturation(x, draw.saturation, "tf"), planes)
  planes = _if(draw.hue != 0, lambda x: hue(x, draw.hue), planes)
  return scale_brightness(planes, jnp.where(draw.contrast_first, 1.0, draw.contrast))
