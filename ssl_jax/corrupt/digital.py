"""Digital corruptions of an image f32[H, W, 3] in [0, 1]."""

from __future__ import annotations

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from ssl_jax.corrupt.linear import both_sides, pick, smoothing
from ssl_jax.corrupt.tables import PARAMETERS


def brightness(key, image, severity, *, table):
  """Adds a constant to the V of HSV and clips it to [0, 1]. Exact."""
  value = image.max(-1, keepdims=True)
  wanted = jnp.clip(value + pick(PARAMETERS["brightness"][table], severity), 0, 1)
  return jnp.where(value > 0, image * wanted / jnp.where(value > 0, value, 1.0), wanted)


def saturate(key, image, severity, *, table):
  """Scales and shifts the S of HSV. Exact.

  Grey pixels have no hue; where S is shifted they turn red, as in the reference.
  """
  factor, shift = pick(PARAMETERS["saturate"][table], severity)
  value = image.max(-1, keepdims=True)
  chroma = value - image.min(-1, keepdims=True)
  old = jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1.0), 0.0)
  new = jnp.clip(old * factor + shift, 0, 1)
  grey = value * jnp.concatenate([jnp.ones_like(new), 1 - new, 1 - new], -1)
  return jnp.where(chroma > 0, value - (value - image) * new / jnp.where(chroma > 0, old, 1.0), grey)


def contrast(key, image, severity, *, table):
  """Blends each channel with its mean over the image. Exact."""
  mean = image.mean((0, 1), keepdims=True)
  return (image - mean) * pick(PARAMETERS["contrast"][table], severity) + mean


def pixelate(key, image, severity, *, table):
  """Reduces the image with Pillow's box filter and enlarges it again by repeating pixels.

  Exact up to Pillow's fixed-point arithmetic.
  """
  fractions = PARAMETERS["pixelate"][table]
  rows, columns = (
    [
      jnp.asarray(np.stack(bank))[severity - 1]
      for bank in zip(*[_boxes(side, int(side * fraction), most) for fraction in fractions])
    ]
    for side, most in ((side, int(side * max(fractions))) for side in image.shape[:2])
  )
  small = jnp.floor(both_sides(rows[0], columns[0], image) * 255 + 0.5) / 255
  return both_sides(rows[1], columns[1], small)


def _boxes(full: int, size: int, most: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns two matrices for one side: f32[most, full] reduces it and f32[full, most] enlarges it again.

  The first averages `full` pixels into `size` rows, and its other rows are 0. It is Pillow's box filter: a
  pixel has full weight if its centre lies within half a box of the centre of the new pixel.
  """
  scale = full / size
  middle = (np.arange(size) + 0.5) * scale
  # Pillow reads the pixels from int(middle - scale / 2 + 0.5) to int(middle + scale / 2 + 0.5).
  first, last = (
    np.maximum((middle - scale / 2 + 0.5).astype(int), 0),
    np.minimum((middle + scale / 2 + 0.5).astype(int), full),
  )
  x = (np.arange(full) - middle[:, None] + 0.5) / scale
  inside = (np.arange(full) >= first[:, None]) & (np.arange(full) < last[:, None]) & (x > -0.5) & (x <= 0.5)
  down, up = np.zeros((most, full), np.float32), np.zeros((full, most), np.float32)
  down[:size] = inside / inside.sum(1, keepdims=True)
  up[np.arange(full), ((np.arange(full) + 0.5) * size / full).astype(int)] = 1
  return down, up


def elastic_transform(key, image, severity, *, table):
  """Applies a random affine map and then random smooth displacements.

  Random; exact for given draws, except for OpenCV's fixed-point interpolation weights. The reference computes
  its ImageNet parameters with a side of 244 instead of 224, a mistake that is kept here because these are the
  published values.
  """
  rows = PARAMETERS["elastic_transform"][table]
  alpha, _, jitter = pick(rows, severity)
  height, width, _ = image.shape
  corner_key, across_key, down_key = jax.random.split(key, 3)
  middle, reach = np.array([width // 2, height // 2], np.float32), min(height, width) // 3
  old = np.stack([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach]).astype(np.float32)
  new = old + jitter * jax.random.uniform(corner_key, (3, 2), minval=-1.0)
  # [3, 2]: the affine map from new to old positions
  back = jnp.linalg.solve(jnp.concatenate([new, jnp.ones((3, 1))], 1), jnp.asarray(old))
  y, x = (
    grid.astype(jnp.float32) for grid in jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
  )
  warped = _sample(image, *(x * back[0, i] + y * back[1, i] + back[2, i] for i in (1, 0)), mode="mirror")
  across, down = (_field(k, rows, severity, height, width) * alpha for k in (across_key, down_key))
  return _sample(warped, y + down, x + across, mode="reflect")


def _field(key, rows, severity, height: int, width: int) -> jax.Array:
  """Returns smoothed uniform noise in [-1, 1], f32[H, W]."""
  noise = jax.random.uniform(key, (height, width, 1), minval=-1.0)
  banks = [
    np.stack(
      [
        smoothing(side, sigma, truncate=3.0, border="reflect") if sigma else np.eye(side, dtype=np.float32)
        for _, sigma, _ in rows
      ]
    )
    for side in (height, width)
  ]
  return both_sides(*(jnp.asarray(bank)[severity - 1] for bank in banks), image=noise)[..., 0]


def _sample(image, rows, columns, *, mode: str) -> jax.Array:
  """Interpolates the image bilinearly at the positions `rows` and `columns`, f32[H, W] each."""
  return jnp.stack(
    [map_coordinates(image[..., c], (rows, columns), order=1, mode=mode) for c in range(image.shape[-1])], -1
  )


# The quantisation tables of the JPEG standard, annex K, in reading order.
_LUMINANCE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ]
)
_CHROMINANCE = np.array(
  [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
  ]
)
_BITS, _EXTRA = 13, 2  # of the fractions in libjpeg's transforms, and kept between their two passes


def jpeg_compression(key, image, severity, *, table):
  """Compresses the image as JPEG and decodes it, as libjpeg does, without the lossless entropy coding.

  The chrominance has half the resolution. Exact: the integer arithmetic is that of libjpeg ("islow"), for
  images whose sides are multiples of 16.
  """
  qualities = PARAMETERS["jpeg_compression"][table]
  height, width, _ = image.shape
  down, across = (-side % 16 for side in (height, width))
  x = jnp.pad(jnp.round(image * 255).astype(jnp.int32), ((0, down), (0, across), (0, 0)), mode="edge")
  tables = [
    jnp.asarray(np.stack([_quantisation(base, q) for q in qualities]))[severity - 1]
    for base in (_LUMINANCE, _CHROMINANCE)
  ]
  luma, blue, red = (_weighted(x, *row) for row in _TO_YCC)
  luma = _quantised(luma, tables[0])
  blue, red = (_doubled(_quantised(_halved(plane), tables[1])) - 128 for plane in (blue, red))
  chroma = jnp.stack([blue, red], -1)
  found = jnp.stack([luma + _weighted(chroma, *row) for row in _FROM_CHROMA], -1)
  return jnp.clip(found, 0, 255)[:height, :width].astype(jnp.float32) / 255


# Weights and offset in units of 2^-16, as libjpeg rounds them.
_TO_YCC = (
  ((19595, 38470, 7471), 1 << 15),
  ((-11059, -21709, 32768), (128 << 16) + (1 << 15) - 1),
  ((32768, -27439, -5329), (128 << 16) + (1 << 15) - 1),
)
_FROM_CHROMA = (((0, 91881), 1 << 15), ((-22554, -46802), 1 << 15), ((116130, 0), 1 << 15))


def _weighted(x: jax.Array, weights: tuple[int, ...], offset: int) -> jax.Array:
  """The weighted sum over the last axis of i32[..., C] in units of 2^-16, plus the offset, rounded down."""
  return (jnp.stack([weight * x[..., c] for c, weight in enumerate(weights)]).sum(0) + offset) >> 16


def _quantisation(base: np.ndarray, quality: int) -> np.ndarray:
  """Returns libjpeg's quantisation table for a quality from 1 to 100, i32[8, 8]."""
  scale = 5000 // quality if quality < 50 else 200 - 2 * quality
  return np.clip((base * scale + 50) // 100, 1, 255).astype(np.int32)


def _quantised(plane: jax.Array, table: jax.Array) -> jax.Array:
  """Rounds the cosine coefficients of the 8 x 8 blocks of a plane to multiples of `table`, i32[8, 8].

  The plane, i32[H, W], and the result hold whole numbers from 0 to 255.
  """
  blocks = einops.rearrange(plane - 128, "(h p) (w q) -> h w p q", p=8, q=8)
  found = _forward(_forward(blocks, -1, -_EXTRA), -2, _EXTRA)  # eight times the coefficients
  unit = 8 * table[None, None]
  kept = jnp.sign(found) * ((jnp.abs(found) + unit // 2) // unit) * table[None, None]
  blocks = _backward(_backward(kept, -2, -_EXTRA), -1, _EXTRA + 3)
  return jnp.clip(einops.rearrange(blocks, "h w p q -> (h p) (w q)") + 128, 0, 255)


def _descale(x: jax.Array, bits: int) -> jax.Array:
  """x / 2^bits, rounded to the nearest whole number; for negative bits exact."""
  return (x + (1 << (bits - 1))) >> bits if bits > 0 else x << -bits


def _odd(a, b, c, d) -> tuple[jax.Array, ...]:
  """The odd half of both transforms: a rotation of four numbers, in units of 2^-13."""
  last = (a + c + b + d) * 9633
  outer, inner = (a + d) * -7373, (b + c) * -20995
  even, odd = (a + c) * -16069 + last, (b + d) * -3196 + last
  return (a * 2446 + outer + even, b * 16819 + inner + odd, c * 25172 + inner + even, d * 12299 + outer + odd)


def _forward(x: jax.Array, axis: int, bits: int) -> jax.Array:
  """One pass of libjpeg's forward transform (jfdctint.c) along an axis of length 8, divided by 2^bits."""
  x = jnp.moveaxis(x, axis, 0)
  s = [x[i] + x[7 - i] for i in range(4)]
  a, b, c, d = s[0] + s[3], s[1] + s[2], s[1] - s[2], s[0] - s[3]
  turned = (c + d) * 4433
  seventh, fifth, third, first = _odd(*(x[i] - x[7 - i] for i in (3, 2, 1, 0)))
  fine = [first, turned + d * 6270, third, fifth, turned - c * 15137, seventh]
  first, second, third, fifth, sixth, seventh = (_descale(y, _BITS + bits) for y in fine)
  zeroth, fourth = _descale(a + b, bits), _descale(a - b, bits)
  return jnp.moveaxis(jnp.stack([zeroth, first, second, third, fourth, fifth, sixth, seventh]), 0, axis)


def _backward(x: jax.Array, axis: int, bits: int) -> jax.Array:
  """One pass of libjpeg's inverse transform (jidctint.c) along an axis of length 8, divided by 2^bits."""
  x = jnp.moveaxis(x, axis, 0)
  turned = (x[2] + x[6]) * 4433
  inner, outer = turned - x[6] * 15137, turned + x[2] * 6270
  plus, minus = (x[0] + x[4]) << _BITS, (x[0] - x[4]) << _BITS
  even = [plus + outer, minus + inner, minus - inner, plus - outer]
  odd = _odd(x[7], x[5], x[3], x[1])[::-1]
  rows = [e + o for e, o in zip(even, odd)] + [e - o for e, o in zip(even[::-1], odd[::-1])]
  return jnp.moveaxis(jnp.stack([_descale(y, _BITS + bits) for y in rows]), 0, axis)


def _halved(plane: jax.Array) -> jax.Array:
  """Averages blocks of 2 x 2, rounding alternately down and up along a row, as libjpeg does."""
  total = einops.reduce(plane, "(h a) (w b) -> h w", "sum", a=2, b=2)
  bias = 1 + jnp.arange(total.shape[1], dtype=jnp.int32) % 2
  return (total + bias[None]) >> 2


def _doubled(plane: jax.Array) -> jax.Array:
  """Computes libjpeg's "fancy" upsampling: 3/4 of the nearest pixel and 1/4 of the next, along both sides."""

  def along_rows(plane):
    above = jnp.concatenate([plane[:1], plane[:-1]])
    below = jnp.concatenate([plane[1:], plane[-1:]])
    return jnp.stack([3 * plane + above, 3 * plane + below], 1).reshape(-1, plane.shape[1])

  both = along_rows(along_rows(plane).T).T  # sixteen times the value
  bias = 8 - jnp.arange(both.shape[1], dtype=jnp.int32) % 2
  return (both + bias[None]) >> 4
