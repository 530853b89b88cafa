"""Logits for every pixel of images of any size, from a network that sees windows of one size.

Images lie in the upper left corner of a canvas of static shape, so that one compiled program serves all sizes
of a data set. The windows of an image depend on its own size only, never on the canvas.

Source: the sliding evaluation of MMSegmentation (`slide_inference`): overlapping windows are averaged before
the softmax, and the last window of a row or column ends at the border of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.augment.crops import to_float
from ssl_jax.augment.record_moves import MEAN
from ssl_jax.core import PyTree
from ssl_jax.models.normalize import fill_padding

# (params, model_state, f32 images in [0, 1]) -> f32[B, H, W, C]
Predict = Callable[[PyTree, PyTree, jax.Array], jax.Array]
_ROWS = 64  # rows of the label that are resized at once, to save memory


class Windows(NamedTuple):
  """A grid of windows over a canvas. Static: all its numbers are part of the compiled program."""

  canvas: tuple[int, int]  # (height, width) in pixels; at least the sides of the window
  window: tuple[int, int]
  stride: tuple[int, int]

  @property
  def grid(self) -> tuple[int, int]:
    """The numbers of windows (in a column, in a row) of an image that fills the canvas."""
    return tuple(
      -(-(full - side) // step) + 1 for full, side, step in zip(self.canvas, self.window, self.stride)
    )  # pyright: ignore[reportReturnType]

  @property
  def count(self) -> int:
    """The number of windows of an image that fills the canvas."""
    return self.grid[0] * self.grid[1]


class Totals(NamedTuple):
  """The sums over the windows that were computed so far."""

  logits: jax.Array  # f32[B, H, W, C] on the canvas
  count: jax.Array  # f32[B, H, W]: the number of windows over each pixel


def place_windows(canvas: tuple[int, int], window: int, stride: int) -> Windows:
  """Makes the grid of windows over images of at most the size of `canvas`.

  Args:
    canvas: (height, width) of the largest image.
    window: side of the square windows in pixels; 0: one window of the size of the canvas.
    stride: pixels between neighbouring windows; 0: two thirds of the window.
  Returns: windows whose canvas is enlarged to the size of a window where it is smaller.
  """
  if not window:
    return Windows(canvas, canvas, canvas)
  step = stride or max(round(window * 2 / 3), 1)
  large = (max(canvas[0], window), max(canvas[1], window))
  return Windows(large, (window, window), (step, step))


def window_starts(windows: Windows, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Where the windows of images begin.

  Args:
    sizes: i32[B, 2], (height, width) of the images.
  Returns: (i32[B, N, 2]: (top, left) of each window; bool[B, N]: False for windows that the image does not
    need, which repeat its last ones). N is `windows.count`.
  """
  places, needed = [], []
  for axis in (0, 1):
    number = jnp.arange(windows.grid[axis])[None]
    last = jnp.maximum(sizes[:, axis : axis + 1] - windows.window[axis], 0)
    places.append(jnp.minimum(number * windows.stride[axis], last))
    needed.append(number * windows.stride[axis] < last + windows.stride[axis])
  batch, shape = len(sizes), (len(sizes), *windows.grid)
  top = jnp.broadcast_to(places[0][:, :, None], shape)
  left = jnp.broadcast_to(places[1][:, None, :], shape)
  valid = needed[0][:, :, None] & needed[1][:, None, :]
  return jnp.stack([top, left], -1).reshape(batch, -1, 2), valid.reshape(batch, -1)


def start_totals(batch: int, classes: int, windows: Windows) -> Totals:
  """Zero sums for a batch of images."""
  shape = (batch, *windows.canvas)
  return Totals(jnp.zeros((*shape, classes), jnp.float32), jnp.zeros(shape, jnp.float32))


def add_windows(
  params: PyTree,
  model_state: PyTree,
  totals: Totals,
  images: jax.Array,
  sizes: jax.Array,
  first: jax.Array,
  *,
  predict: Predict,
  windows: Windows,
  together: int,
) -> Totals:
  """Adds the logits of windows `first` to `first + together - 1` of every image, as one batch of windows.

  Args:
    images: uint8 or f32 [B, H, W, 3] on the canvas, (H, W) at most `windows.canvas`.
    sizes: i32[B, 2], (height, width) of the images.
    first: i32[], traced, so that all calls share one compiled program.
  """
  missing = [(0, full - side) for full, side in zip(windows.canvas, images.shape[1:3])]
  padded = jnp.pad(to_float(images), [(0, 0), *missing, (0, 0)])
  views = fill_padding(padded, sizes, MEAN)
  starts, needed = window_starts(windows, sizes)
  more = [(0, 0), (0, together)]  # a slice that would reach beyond the end must not move
  starts = lax.dynamic_slice_in_dim(jnp.pad(starts, [*more, (0, 0)]), first, together, 1)
  needed = lax.dynamic_slice_in_dim(jnp.pad(needed, more), first, together, 1)
  cut = lambda image, place: lax.dynamic_slice(image, (*place, 0), (*windows.window, 3))
  batch = jax.vmap(jax.vmap(cut, (None, 0)))(views, starts)
  logits = predict(params, model_state, batch.reshape(-1, *batch.shape[2:]))
  logits = logits.reshape(*batch.shape[:2], *logits.shape[1:])
  return jax.vmap(_add)(totals, logits, starts, needed.astype(jnp.float32))


def _add(totals: Totals, logits: jax.Array, starts: jax.Array, weights: jax.Array) -> Totals:
  """Adds the logits f32[n, h, w, C] of the windows of one image."""
  for one, place, weight in zip(logits, starts, weights):
    corner = (*place, jnp.int32(0))
    before = lax.dynamic_slice(totals.logits, corner, one.shape)
    count = lax.dynamic_slice(totals.count, place, one.shape[:2])
    totals = Totals(
      lax.dynamic_update_slice(totals.logits, before + weight * one, corner),
      lax.dynamic_update_slice(totals.count, count + weight, place),
    )
  return totals


def classes_of_same_size(totals: Totals, canvas: tuple[int, int]) -> jax.Array:
  """As `classes_of` for images that have the sizes of their labels, so that nothing is resized."""
  missing = [(0, max(full - side, 0)) for full, side in zip(canvas, totals.count.shape[1:])]
  found = jnp.argmax(totals.logits, -1).astype(jnp.uint8)  # a sum and a mean have the same maximum
  return jnp.pad(found, [(0, 0), *missing])[:, : canvas[0], : canvas[1]]


def classes_of(
  totals: Totals, sizes: jax.Array, label_sizes: jax.Array, canvas: tuple[int, int]
) -> jax.Array:
  """The class of the largest mean logit of every pixel of the labels.

  The logits are resized bilinearly from the size of each image to that of its label, whose half-pixel centres
  are aligned. Labels have at most 255 classes.

  Args:
    sizes, label_sizes: i32[B, 2], (height, width) of each image and of its label.
    canvas: (height, width) of the labels' canvas.
  Returns: uint8[B, *canvas]; arbitrary beyond the label.
  """
  return _resized(totals, sizes, label_sizes, canvas, _likeliest)


def confident_classes_of(
  totals: Totals, sizes: jax.Array, label_sizes: jax.Array, canvas: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
  """As `classes_of`, and f16[B, *canvas]: the probability of the class in the softmax of the logits."""
  return _resized(totals, sizes, label_sizes, canvas, _likeliest_with_probability)


def _likeliest(logits: jax.Array) -> jax.Array:
  return jnp.argmax(logits, -1).astype(jnp.uint8)


def _likeliest_with_probability(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  probability = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, -1))
  return _likeliest(logits), probability.astype(jnp.float16)


def _resized(totals: Totals, sizes, label_sizes, canvas: tuple[int, int], found_in: Callable) -> Any:
  """What `found_in` finds in the mean logits f32[H, W, C] of the pixels of the labels, [B, *canvas]."""
  one_of = functools.partial(_one_of, canvas=canvas, found_in=found_in)
  return jax.vmap(one_of)(totals.logits, totals.count, sizes, label_sizes)


def _one_of(logits, count, size, label_size, *, canvas: tuple[int, int], found_in: Callable) -> Any:
  mean = logits / jnp.maximum(count, 1)[..., None]
  rows, columns = (_taps(size[axis], label_size[axis], canvas[axis]) for axis in (0, 1))
  blocks = -(-canvas[0] // _ROWS)
  padded = [jnp.pad(leaf, (0, blocks * _ROWS - canvas[0])).reshape(blocks, _ROWS) for leaf in rows]

  def block(taps):
    return found_in(_lerp(_lerp(mean, taps, 0), columns, 1))

  return jax.tree.map(lambda leaf: leaf.reshape(-1, canvas[1])[: canvas[0]], lax.map(block, tuple(padded)))


def _taps(size: jax.Array, label_size: jax.Array, canvas: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """For each pixel of one axis of the label: (i32: the pixel before it, i32: the one after it, f32: the
  weight of the latter)."""
  ratio = size.astype(jnp.float32) / jnp.maximum(label_size, 1).astype(jnp.float32)
  place = (jnp.arange(canvas, dtype=jnp.float32) + 0.5) * ratio - 0.5
  last = jnp.maximum(size - 1, 0)
  place = jnp.clip(place, 0, last.astype(jnp.float32))
  before = jnp.floor(place).astype(jnp.int32)
  return before, jnp.minimum(before + 1, last), place - before.astype(jnp.float32)


def _lerp(values: jax.Array, taps: tuple[jax.Array, jax.Array, jax.Array], axis: int) -> jax.Array:
  before, after, weight = taps
  first, second = (jnp.take(values, place, axis=axis) for place in (before, after))
  weight = weight[:, None, None] if axis == 0 else weight[None, :, None]
  return first + weight * (second - first)
