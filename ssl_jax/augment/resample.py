"""Crop and resize as one small banded matrix per axis.

Inside this package an image is a stack of planes, f32[3, W, H] (or [3, H, W] before a crop): SIMD lanes and
TPU tiles then run along a side of the image and not along three channels. An accelerator multiplies by the
matrices densely; a CPU adds up the few rows that count, one plane at a time. The loop over planes is also
what keeps XLA's CPU compiler from fusing both axes into one loop that computes the first anew for every tap
of the second.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# On TPU the default precision rounds both factors to bfloat16, whose 8 bits would show as banding; three
# passes do not.
PRECISION = lax.Precision.HIGH

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


class Taps(NamedTuple):
  """A matrix [S, N] with T entries in each row: row s holds weight[s, t] in column index[s, t]."""

  index: jax.Array  # i32[S, T]
  weight: jax.Array  # f32[S, T]


def crop_taps(start, length, *, full: int, size: int, method: str, antialias: bool, flip=False) -> Taps:
  """The resampling of `length` pixels from `start` on to `size`, the crop standing for the whole image.

  Pixel centres lie at i + 1/2. The kernel is the triangle or Keys' cubic with a = -1/2, stretched by the
  scale when `antialias` is set and the scale exceeds 1; what falls outside the crop is cut off and the rest
  renormalised, which is what Pillow computes for crop-then-resize, and without `antialias` what TensorFlow 2
  computes.

  Args:
    start, length: i32[], may be traced; 0 <= start, start + length <= full.
    full: pixels on this side of the image, the bound of `length`.
    flip: bool[], may be traced: whether the output runs backwards.
  """
  largest_scale = max(1.0, full / size) if antialias else 1.0
  count = math.ceil(2 * _SUPPORT[method] * largest_scale)
  length = jnp.asarray(length, jnp.float32)
  scale = length / size
  stretch = jnp.maximum(scale, 1.0) if antialias else jnp.ones(())
  place = jnp.arange(size, dtype=jnp.float32)
  place = jnp.where(flip, size - 1 - place, place)
  center = ((place + 0.5) * scale)[:, None]
  first = jnp.floor(center - _SUPPORT[method] * stretch - 0.5) + 1
  index = first + jnp.arange(count, dtype=jnp.float32)[None]
  weight = _kernel((index + 0.5 - center) / stretch, method)
  weight = jnp.where((index >= 0) & (index < length), weight, 0.0)
  weight = weight / weight.sum(1, keepdims=True)
  index = jnp.clip(index, 0, length - 1).astype(jnp.int32) + jnp.asarray(start, jnp.int32)
  return Taps(index, weight)


def _kernel(x: jax.Array, method: str) -> jax.Array:
  x = jnp.abs(x)
  if method == "bilinear":
    return jnp.maximum(1.0 - x, 0.0)
  near = (1.5 * x - 2.5) * x * x + 1.0
  far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def resample(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  """planes [3, H, W] of any dtype -> f32[3, T, S], `rows` [S, H] and `columns` [T, W] applied; transposed.

  Transposed, because every later step of a view works either way up and the last turns it back for nothing.
  """
  return lax.platform_dependent(
    rows, columns, planes, cpu=_resample_by_gathering, default=_resample_by_matmul
  )


def _resample_by_gathering(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  halfway = lax.map(lambda plane: _gather(rows, plane), planes)
  return lax.map(lambda plane: _gather(columns, plane.T), halfway)


def _gather(taps: Taps, plane: jax.Array) -> jax.Array:
  pick = lambda t: plane.at[taps.index[:, t]].get(mode="promise_in_bounds").astype(jnp.float32)
  return sum(pick(t) * taps.weight[:, t, None] for t in range(taps.index.shape[1]))


def _resample_by_matmul(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  _, height, width = planes.shape
  halfway = jnp.einsum("sh,chw->csw", _dense(rows, height), planes.astype(jnp.float32), precision=PRECISION)
  return jnp.einsum("tw,csw->cts", _dense(columns, width), halfway, precision=PRECISION)


def _dense(taps: Taps, columns: int) -> jax.Array:
  hit = taps.index[:, :, None] == jnp.arange(columns)[None, None]
  return jnp.where(hit, taps.weight[:, :, None], 0.0).sum(1)


def matrix(full: int, size: int, method: str) -> np.ndarray:
  """f32[size, full]: the antialiased resampling of a whole side, as Pillow and jax.image.resize do it.

  For lengths that are known when a program is traced; a stack of such matrices makes a choice among them a table look-up.
  Args:
    method: "nearest", "bilinear", "bicubic" (a = -1/2) or "lanczos" (three lobes).
  """
  center = (np.arange(size) + 0.5) * full / size
  if method == "nearest":
    return (np.floor(center)[:, None] == np.arange(full)).astype(np.float32)
  x = np.abs(np.arange(full) + 0.5 - center[:, None]) / max(full / size, 1)
  weight = {
    "bilinear": lambda: np.maximum(1 - x, 0),
    "bicubic": lambda: np.where(
      x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0)
    ),
    "lanczos": lambda: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0),
  }[method]()
  return (weight / weight.sum(1, keepdims=True)).astype(np.float32)
