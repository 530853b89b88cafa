"""RoIAlign in two forms that compute the same: gathering taps, and two small interpolation matrices a RoI.

The bins of a RoI are averages of bilinear samples on a grid, and a grid is a product of rows and columns. So
the taps are a product, too: for each bin a few rows with weights and a few columns with weights (`Taps`).
"gather" reads them from a table of pixels; it serves CPU and GPU, and each RoI is computed on its own pyramid
level only, because the levels lie one after another in the table. "separable" multiplies by the taps as dense
matrices [P, H] and [P, W]; TPUs take it well, where a large gather runs out of memory. It computes every RoI
on every level, with the weights of other levels zero: p2 alone takes 3/4 of that work, and a dispatch of RoIs
to levels would need counts that depend on data, or would compute all levels under vmap.

Both forms go through the RoIs in chunks of bounded memory. No gradient passes to the boxes, as in the
references.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.detect.boxes import area, check_float32, in_tiles

# Three bfloat16 passes on TPU: the interpolation weights keep the precision of the coordinates.
PRECISION = lax.Precision.HIGH
SCATTERED = 2**22  # bytes of updates in one scatter of the gradient: more leave the cache of a CPU

Form = Literal["auto", "gather", "separable"]


class Taps(NamedTuple):
  """What the bins read along one axis: bin p is the sum over t of weight[p, t] * pixel[index[p, t]]."""

  index: jax.Array  # i32[..., P, T], within the axis
  weight: jax.Array  # f32[..., P, T]


def assign_levels(
  boxes: jax.Array,
  *,
  lowest: int = 2,
  highest: int = 5,
  canonical_side: float = 224.0,
  canonical_level: int = 4,
) -> jax.Array:
  """i32[R]: the pyramid level of each box, floor(4 + log2(sqrt(area) / 224)), clamped to the existing levels.

  Computed by comparison with the areas where the level changes: a logarithm may round below the integer that
  a side of exactly 112, 224 or 448 pixels must give.

  Args:
    boxes: f32[R, 4] pixels.
    lowest, highest: names of the first and last level, log2 of their strides.
  Source: Lin et al. 2017 (FPN), equation 1.
  """
  steps = jnp.arange(lowest + 1, highest + 1, dtype=jnp.float32)
  least_areas = jnp.square(canonical_side * jnp.exp2(steps - canonical_level))
  return lowest + (area(boxes)[:, None] >= least_areas[None]).sum(1, dtype=jnp.int32)


def roi_align(features: jax.Array, boxes: jax.Array, *, stride: float, size: int, **options) -> jax.Array:
  """[R, P, P, C]: the features of each RoI of one feature map [H, W, C]; see `pyramid_roi_align`."""
  levels = jnp.zeros(boxes.shape[0], jnp.int32)
  return pyramid_roi_align([features], boxes, levels, strides=[stride], size=size, **options)


@jax.named_scope("roi_align")
def pyramid_roi_align(
  pyramid: Sequence[jax.Array],
  boxes: jax.Array,
  levels: jax.Array,
  *,
  strides: Sequence[float],
  size: int,
  samples: int = 2,
  aligned: bool = True,
  form: Form = "auto",
  memory: int = 2**26,
) -> jax.Array:
  """The features of each RoI on its level: averages over `size` x `size` bins of bilinear samples.

  With c = corner / stride - 1/2, a bin has 1 / size of the RoI's sides, and its samples lie at (i + 1/2) /
  samples of the bin. Pixels lie at integers. Samples less than 1 pixel outside the map take the value at its
  border, others 0: whether a sample at exactly that limit counts is left to rounding. RoIs that are clipped
  to the image have none.

  Args:
    pyramid: feature maps [H_l, W_l, C] of one float type.
    boxes: f32[R, 4] pixels of the image.
    levels: i32[R], an index into `pyramid` (`assign_levels` less its `lowest`).
    strides: pixels of the image for each pixel of the maps.
    size: P.
    samples: samples in a bin along each axis. The references draw ceil(RoI / P) by default, a shape that
      depends on data; 2 is their other common setting.
    aligned: False is the legacy form of imported weights: no shift by 1/2, and sides of at least 1.
    form: "gather", "separable", or "auto": separable on TPU, gather elsewhere.
    memory: bytes of float32 temporaries at a time that bound the number of RoIs in a chunk.
  Returns: [R, P, P, C] of the type of the features; sums are in float32. The separable form rounds the
    weights to that type, too.
  Raises: ValueError for another form, boxes that are not float32, or as many strides as there are not maps.
  Source: He et al. 2017 (Mask R-CNN), section 3; "aligned" is detectron2's ROIAlignV2.
  """
  check_float32(boxes=boxes)
  if len(pyramid) != len(strides):
    raise ValueError(f"{len(pyramid)} feature maps and {len(strides)} strides; give one stride for each map")
  boxes = lax.stop_gradient(boxes)
  stride = jnp.asarray(strides, jnp.float32)[levels][:, None]
  shift = 0.5 if aligned else 0.0
  corners = boxes / stride - shift
  start, sides = corners[:, :2], corners[:, 2:] - corners[:, :2]
  grids = Grids(start, sides if aligned else jnp.maximum(sides, 1.0), levels)
  kind = pyramid[0].dtype
  options: dict[str, Any] = dict(size=size, samples=samples, memory=memory, kind=kind)
  by_form = {
    "gather": functools.partial(_by_gathering, **options),
    "separable": functools.partial(_by_matmul, **options),
  }
  # Before the loop over the chunks, so that the gradients of many RoIs are summed in float32, too.
  levels_f32 = tuple(level.astype(jnp.float32) for level in pyramid)
  if form == "auto":
    run = functools.partial(lax.platform_dependent, tpu=by_form["separable"], default=by_form["gather"])
  elif form in by_form:
    run = by_form[form]
  else:
    raise ValueError(f"form {form!r} of RoIAlign is unknown; use 'auto', 'gather' or 'separable'")
  return run(levels_f32, grids)


class Grids(NamedTuple):
  """RoIs in the pixels of their levels."""

  start: jax.Array  # f32[R, 2], (x, y)
  sides: jax.Array  # f32[R, 2], (width, height)
  level: jax.Array  # i32[R]


def axis_taps(start, length, extent, *, size: int, samples: int, margin: float = 1.0) -> Taps:
  """Taps [P, 2 * samples] of one RoI along one axis of `extent` pixels; all of them may be traced scalars.

  Samples up to `margin` outside the centre of the first or last pixel take its value, others 0.
  """
  bins, parts = (jnp.arange(n, dtype=jnp.float32) for n in (size, samples))
  side = length / size
  place = (start + bins * side)[:, None] + ((parts + 0.5) * side / samples)[None]
  last = jnp.asarray(extent, jnp.int32) - 1
  place, furthest = place.reshape(-1), last.astype(jnp.float32)
  inside = (place >= -margin) & (place <= furthest + margin)
  place = jnp.clip(place, 0.0, furthest)
  low = place.astype(jnp.int32)
  high = jnp.minimum(low + 1, last)
  upper = place - low.astype(jnp.float32)
  weight = jnp.stack([1.0 - upper, upper], -1) * inside[:, None].astype(jnp.float32) / samples
  index = jnp.stack([low, high], -1)
  return Taps(index.reshape(size, 2 * samples), weight.reshape(size, 2 * samples))


def dense(taps: Taps, extent: int) -> jax.Array:
  """f32[P, extent]: the taps as a matrix."""
  hit = taps.index[..., None] == jnp.arange(extent)[None, None]
  return jnp.where(hit, taps.weight[..., None], 0.0).sum(-2)


def chunked(function, rows, bytes_each: int, memory: int):
  """`function` of each row, as many rows at a time as fit into `memory` bytes."""
  total = jax.tree.leaves(rows)[0].shape[0]
  return lax.map(function, rows, batch_size=max(1, min(total, memory // bytes_each)))


def _by_gathering(pyramid, grids: Grids, *, size: int, samples: int, memory: int, kind) -> jax.Array:
  channels = pyramid[0].shape[-1]
  table = jnp.concatenate([level.reshape(-1, channels) for level in pyramid])
  heights, widths = (jnp.array([level.shape[axis] for level in pyramid]) for axis in (0, 1))
  offsets = jnp.cumsum(heights * widths) - heights * widths

  def taps(grid: Grids):
    height, width = heights[grid.level], widths[grid.level]
    columns, rows = (
      axis_taps(grid.start[i], grid.sides[i], extent, size=size, samples=samples)
      for i, extent in enumerate((width, height))
    )
    places = rows.index[:, None, :, None] * width + columns.index[None, :, None]
    weights = rows.weight[:, None, :, None] * columns.weight[None, :, None]
    return offsets[grid.level] + places.reshape(size, size, -1), weights.reshape(size, size, -1)

  found: Any = _weighted_rows(table.shape[0], memory, table, *jax.vmap(taps)(grids))
  return found.astype(kind)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _weighted_rows(total: int, memory: int, table: jax.Array, places: jax.Array, weights: jax.Array):
  """Sums of T rows of a table, one sum for each bin: f32[R, P, P, C].

  One gather for each tap: compilers fuse them into one pass that writes only the sums, while a gather of all
  taps is written out, which takes four times as long on a CPU. The gradient scatters all taps at once,
  because a scatter fuses with nothing.

  Args:
    total: rows of the table.
    memory: bytes of the sums of RoIs at a time.
    table: f32[total, C].
    places, weights: i32 and f32[R, P, P, T], rows of the table and their factors.
  """

  def one(row):
    places, weights = row
    taps = [
      table.at[places[..., tap]].get(mode="promise_in_bounds") * weights[..., tap, None]
      for tap in range(places.shape[-1])
    ]
    return functools.reduce(jnp.add, taps)

  return chunked(one, (places, weights), places[0, ..., 0].size * table.shape[1] * 4, memory)


def _rows_forward(total: int, memory: int, table, places, weights):
  return _weighted_rows(total, memory, table, places, weights), (places, weights)


def _rows_backward(total: int, memory: int, taken, gradient: jax.Array):
  places, weights = taken
  channels = gradient.shape[-1]
  together = max(1, min(len(gradient), SCATTERED // (places[0].size * channels * 4)))

  def add(table, tile):
    places, weights, gradient = tile
    updates = weights[..., None] * gradient[..., None, :]
    return table.at[places].add(updates, mode="promise_in_bounds"), None

  tiles = tuple(in_tiles(rows, together) for rows in (places, weights, gradient))
  return lax.scan(add, jnp.zeros((total, channels)), tiles)[0], None, None


_weighted_rows.defvjp(_rows_forward, _rows_backward)


def _by_matmul(pyramid, grids: Grids, *, size: int, samples: int, memory: int, kind) -> jax.Array:
  """Features in half precision are multiplied in it, which halves the traffic and the passes of the products;
  gradients of chunks are summed in float32."""
  channels = pyramid[0].shape[-1]
  product = functools.partial(jnp.einsum, precision=PRECISION if kind == jnp.float32 else None)

  def on_level(grid: Grids, number: int, level):
    columns, rows = (
      dense(axis_taps(grid.start[i], grid.sides[i], extent, size=size, samples=samples), extent)
      for i, extent in enumerate((level.shape[1], level.shape[0]))
    )
    rows = jnp.where(grid.level == number, rows, 0.0)
    halfway = product("ph,hwc->pwc", rows.astype(kind), level.astype(kind))
    return product("qw,pwc->pqc", columns.astype(kind), halfway)

  def one(grid: Grids):
    found = [on_level(grid, number, level) for number, level in enumerate(pyramid)]
    return functools.reduce(jnp.add, found)  # all but one are zero

  bytes_each = size * max(level.shape[1] for level in pyramid) * channels * 4
  return chunked(one, grids, bytes_each, memory)
