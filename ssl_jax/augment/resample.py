"""Crop and resize as one small banded matrix per axis.

Inside this package an image is a stack of planes, f32[3, W, H] (or [3, H, W] before a crop), so that SIMD
lanes and TPU tiles run along a side of the image and not along three channels. Accelerators multiply by the
dense matrices; a CPU sums the few rows whose weight is not zero, one plane at a time. The loop over planes
also keeps XLA's CPU compiler from fusing both axes into one loop that would compute the first axis again for
every tap of the second.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# On TPU the default precision rounds both factors of a product to bfloat16, whose 8 bits would show as
# banding; HIGH uses three bfloat16 passes, which show none.
PRECISION = lax.Precision.HIGH

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


class Taps(NamedTuple):
  """A sparse matrix [S, N] with T entries in each row: row s holds weight[s, t] in column index[s, t]."""

  index: jax.Array  # i32[S, T]
  weight: jax.Array  # f32[S, T]


def crop_taps(
  start, length, *, full: int, size: int, method: str, antialias: bool, flip: bool | jax.Array = False
) -> Taps:
  """Returns the taps that resample the `length` pixels from `start` on to `size` pixels, along one side.

  Pixel centres lie at i + 1/2. The kernel is the triangle or Keys' cubic with a = -1/2, stretched by the
  scale length / size if `antialias` is set and the scale exceeds 1. Taps outside the crop are dropped and the
  others renormalised. Pillow computes the same for a crop followed by a resize, and so does TensorFlow 2
  without `antialias`.

  Args:
    start, length: i32[], may be traced; 0 <= start, start + length <= full.
    full: number of pixels along this side of the image, which bounds `length`.
    flip: bool[], may be traced: whether the output is reversed.
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


def window_taps(
  start, length, *, bound, size: int, largest_scale: float, flip: bool | jax.Array = False
) -> tuple[Taps, jax.Array]:
  """Taps of a window that need not lie on whole pixels or within the image, along one side: bilinear,
  antialiased.

  `crop_taps` is the faster special case of a crop in whole pixels within the image.

  Args:
    start, length: f32[], may be traced; the window in continuous pixel coordinates.
    bound: i32[], may be traced: pixels 0 to bound - 1 are read, others count as absent.
    size: number of output pixels.
    largest_scale: static upper bound of length / size.
    flip: bool[], may be traced: whether the output is reversed.
  Returns: the taps, and bool[size]: the centre of the output pixel lies within the bound. Other rows are zero
    or take what their filter still reaches.
  """
  count = math.ceil(2 * max(1.0, largest_scale)) + 1
  scale = jnp.asarray(length, jnp.float32) / size
  stretch = jnp.maximum(scale, 1.0)
  place = jnp.arange(size, dtype=jnp.float32)
  place = jnp.where(flip, size - 1 - place, place)
  center = (start + (place + 0.5) * scale)[:, None]
  index = jnp.floor(center - stretch - 0.5) + 1 + jnp.arange(count, dtype=jnp.float32)[None]
  weight = _kernel((index + 0.5 - center) / stretch, "bilinear")
  last = jnp.asarray(bound, jnp.float32) - 1
  weight = jnp.where((index >= 0) & (index <= last), weight, 0.0)
  total = weight.sum(1, keepdims=True)
  weight = weight / jnp.where(total > 0, total, 1.0)
  inside = (center[:, 0] >= 0) & (center[:, 0] <= last + 1)
  return Taps(jnp.clip(index, 0, last).astype(jnp.int32), weight), inside


def _kernel(x: jax.Array, method: str) -> jax.Array:
  x = jnp.abs(x)
  if method == "bilinear":
    return jnp.maximum(1.0 - x, 0.0)
  near = (1.5 * x - 2.5) * x * x + 1.0
  far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))


def resample(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  """Applies `rows` [S, H] and `columns` [T, W] to planes [3, H, W] of any dtype; returns f32[3, T, S].

  The result is transposed: the later steps of a view do not depend on the orientation, and the last step
  transposes back at no cost.
  """
  return lax.platform_dependent(
    rows, columns, planes, cpu=_resample_by_gathering, default=_resample_by_matmul
  )


def _resample_by_gathering(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  halfway = lax.map(lambda plane: _gather(rows, plane), planes)
  return lax.map(lambda plane: _gather(columns, plane.T), halfway)


def _gather(taps: Taps, plane: jax.Array) -> jax.Array:
  pick = lambda t: plane.at[taps.index[:, t]].get(mode="promise_in_bounds").astype(jnp.float32)
  terms = (pick(t) * taps.weight[:, t, None] for t in range(taps.index.shape[1]))
  return sum(terms)  # pyright: ignore[reportReturnType]  # at least one term


def _resample_by_matmul(rows: Taps, columns: Taps, planes: jax.Array) -> jax.Array:
  _, height, width = planes.shape
  halfway = jnp.einsum("sh,chw->csw", _dense(rows, height), planes.astype(jnp.float32), precision=PRECISION)
  return jnp.einsum("tw,csw->cts", _dense(columns, width), halfway, precision=PRECISION)


def _dense(taps: Taps, columns: int) -> jax.Array:
  hit = taps.index[:, :, None] == jnp.arange(columns)[None, None]
  return jnp.where(hit, taps.weight[:, :, None], 0.0).sum(1)


def matrix(full: int, size: int, method: str) -> np.ndarray:
  """Returns the matrix f32[size, full] that resamples a whole side with antialiasing.

  It computes what Pillow and jax.image.resize compute. The lengths must be known when the program is traced;
  from a stack of such matrices a traced index can then select one.

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
