"""Segments batches of images of any size on all devices, with windows that are computed together."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Segmenter
from ssl_jax.parallel import placement
from ssl_jax.tasks import sliding_windows
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.one_ahead import one_ahead, to_devices
from ssl_jax.tasks.sliding_windows import Windows

WINDOWS = 8  # computed at once on a device


class Geometry(NamedTuple):
  """The shapes of an evaluation, which hold for all images of the test split."""

  windows: Windows
  image_canvas: tuple[int, int]
  mask_canvas: tuple[int, int]
  resized: bool = False  # whether images are resized, so that their logits have to be too


def count_classes(backbone: Backbone, segmenter: Segmenter, windows: Windows) -> int:
  """The number of classes that the network distinguishes."""
  view = jax.ShapeDtypeStruct((1, *windows.window, 3), jnp.float32)
  return jax.eval_shape(segmenter.predict, *backbone.weights, view).shape[-1]


def segmenting(backbone: Backbone, segmenter: Segmenter, geometry: Geometry, together: int, mesh: Mesh):
  """Returns a function of the rows of this process that starts the computation of `Found`."""
  parallel.bound_programs()
  windows = geometry.windows
  weights = placement.replicate(tuple(backbone.weights), mesh)
  num_classes = count_classes(backbone, segmenter, windows)
  options = {"predict": segmenter.predict, "windows": windows, "mesh": mesh}

  def segment(batch: dict[str, jax.Array]) -> jax.Array:
    images, sizes = batch["image"], batch["image_size"]
    number = min(together or max(WINDOWS * mesh.size // len(images), 1), windows.count)
    totals = _start(images, classes=num_classes, windows=windows, mesh=mesh)
    for first in range(0, windows.count, number):
      totals = _add(*weights, totals, images, sizes, np.int32(first), together=number, **options)
    canvas = geometry.mask_canvas
    return _finish(totals, sizes, batch["mask_size"], resized=geometry.resized, canvas=canvas, mesh=mesh)

  return functools.partial(_on_devices, segment, mesh)


def _on_devices(segment, mesh: Mesh, rows: dict[str, np.ndarray]):
  """Starts the computation for the rows of this process: the arrays of `Found`, still on the devices."""
  batch = to_devices(rows, mesh)
  return segment(batch), *_replicated(batch["mask"], batch["index"], batch["valid"], mesh=mesh)


@functools.partial(jax.jit, static_argnames=("classes", "windows", "mesh"))
def _start(images, *, classes: int, windows: Windows, mesh: Mesh):
  totals = sliding_windows.start_totals(len(images), classes, windows)
  return jax.lax.with_sharding_constraint(totals, placement.along_data(mesh))


@functools.partial(
  jax.jit, static_argnames=("predict", "windows", "together", "mesh"), donate_argnames="totals"
)
def _add(params, model_state, totals, images, sizes, first, *, predict, windows, together, mesh):
  totals = sliding_windows.add_windows(
    params, model_state, totals, images, sizes, first, predict=predict, windows=windows, together=together
  )
  return jax.lax.with_sharding_constraint(totals, placement.along_data(mesh))


@functools.partial(jax.jit, static_argnames=("resized", "canvas", "mesh"))
def _finish(totals, sizes, label_sizes, *, resized: bool, canvas, mesh):
  if resized:
    found = sliding_windows.classes_of(totals, sizes, label_sizes, canvas)
  else:
    found = sliding_windows.classes_of_same_size(totals, canvas)
  return jax.lax.with_sharding_constraint(found, placement.replicated(mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _replicated(*arrays, mesh):
  return jax.lax.with_sharding_constraint(arrays, placement.replicated(mesh))


class Found(NamedTuple):
  """What was computed for one global batch; the same on every process."""

  predicted: np.ndarray  # uint8[B, H, W]
  truth: np.ndarray  # uint8[B, H, W]: the values of the labels
  index: np.ndarray  # i32[B]
  valid: np.ndarray  # bool[B]


def segment_each(segment, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[Found]:
  """Yields the valid rows of each global batch; the devices are one batch ahead."""
  for arrays in one_ahead(segment, batches):
    found = Found(*arrays)
    yield Found(*(leaf[found.valid] for leaf in found))
