"""Applies a network to arrays of images of any number and size, by one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.augment.crops import to_float
from ssl_jax.core import PyTree, Weights
from ssl_jax.data import transforms
from ssl_jax.data.image_forms import as_pixels

Function = Callable[[PyTree, PyTree, jax.Array], PyTree]  # (params, model_state, images) -> arrays [B, ...]


def apply_in_batches(
  function: Function,
  weights: Weights,
  images: Any,
  *,
  size: int,
  interpolation: str,
  mesh: Mesh,
  batch_size: int,
) -> PyTree:
  """Applies a function to all images, `batch_size` at a time; the last batch is padded.

  Args:
    function: pure; it is compiled once for each `size`, `batch_size` and dtype.
    images: numpy, jax or torch arrays of one size, uint8[N, H, W, 3] or floats [N, H, W, 3] from 0 to 1, or a
      sequence of images of different sizes, see `image_forms.as_pixels`.
    size: side in pixels of what the function gets. Images of another size are rounded to 8 bits if they are
      floats, and resized and centre-cropped as in an evaluation.
    batch_size: rounded up to a multiple of the number of devices.
  Returns: the results as NumPy arrays with a leading axis N.
  Raises: ValueError for images of another form, or none.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}; use a positive number")
  rows = _square(images, size, interpolation)
  batch_size = parallel.fill_devices(batch_size, mesh)
  parallel.bound_programs()
  weights = parallel.replicate(tuple(weights), mesh)
  found = []
  for start in range(0, len(rows), batch_size):
    part = rows[start : start + batch_size]
    padded = np.pad(part, [(0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)])
    made = _apply(*weights, parallel.to_devices(padded, mesh), function=function, mesh=mesh)
    found.append(jax.tree.map(np.asarray, made))
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(rows)], *found)


@functools.partial(jax.jit, static_argnames=("function", "mesh"))
def _apply(params: PyTree, model_state: PyTree, images: jax.Array, *, function: Function, mesh: Mesh):
  made = function(params, model_state, to_float(images))
  return jax.lax.with_sharding_constraint(made, parallel.replicated(mesh))


def _square(images: Any, size: int, interpolation: str) -> np.ndarray:
  """uint8 or f32 [N, size, size, 3]."""
  if not len(images):
    raise ValueError("there are no images; use at least one")
  rows = np.zeros(()) if isinstance(images, Sequence) else np.asarray(images)
  if not isinstance(images, Sequence) and rows.ndim != 4:
    raise ValueError(f"images have the shape {rows.shape}; use [N, H, W, 3], or images[None] for one image")
  if rows.shape[1:] == (size, size, 3):
    if rows.dtype == np.uint8:
      return rows
    if rows.dtype.kind == "f" and 0 <= rows.min() and rows.max() <= 1:
      return rows.astype(np.float32)
  crop = transforms.resize_center_crop(size, interpolation=interpolation)
  return np.stack([crop(None, as_pixels(image, f"image {i}")) for i, image in enumerate(images)])
