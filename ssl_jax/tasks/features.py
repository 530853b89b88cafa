"""Frozen features of a set of images, encoded on all devices and stored on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.abilities import Pyramid
from ssl_jax.augment.crops import to_float
from ssl_jax.core import PyTree
from ssl_jax.models.resize import pool
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.task import Batches


class Features(NamedTuple):
  """One row per sample, in the order of `index`. Every process holds the same arrays."""

  x: np.ndarray  # f32[N, ...]: a vector, or logits with axes of their own
  y: np.ndarray  # i32[N, ...]
  index: np.ndarray  # i32[N]: position in the split


Extract = Callable[..., Features]  # (backbone, batches, mesh, *, layer, grid)


def extract(
  backbone: Backbone,
  batches: Batches,
  mesh: Mesh,
  *,
  layer: str = "",
  grid: int = 1,
  watch: Callable[[int], None] | None = None,
) -> Features:
  """Encodes every valid image.

  All batches share one compiled program. While the devices encode one batch, the host reads the next one and
  fetches the results of the previous one.

  Args:
    batches: as in TaskData. Rows whose "valid" is False are dropped, and a short batch is padded to the size
      of the first one.
    layer: a feature map of the network's Pyramid; "": the output of `encode`.
    grid: the feature map is averaged over `grid` x `grid` cells.
    watch: called after each batch with the number of images so far.
  Raises: ValueError for an unknown layer, an empty split, rows that were read twice, or features that are not
    finite.
  """
  found, count = [], 0
  for rows in encoded(backbone, batches(), mesh, layer=layer, grid=grid):
    found.append(rows)
    count += len(rows.x)
    if watch is not None:
      watch(count)
  if not found:
    raise ValueError("no images to extract features from: the split is empty")
  return in_order(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def encoded(
  backbone: Backbone, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, *, layer: str = "", grid: int = 1
) -> Iterator[Features]:
  """Encodes batch after batch; yields the features of the valid rows of each, in the order of the rows.

  Args and Raises: as `extract`; features that are not finite are yielded.
  """
  parallel.bound_programs()
  function = feature_function(backbone, layer=layer, grid=grid)
  weights = placement.replicate(tuple(backbone.weights), mesh)
  pending, size, read = None, 0, 0
  for batch in batches:
    size = size or _round_up(len(batch["image"]), len(mesh.local_devices))
    rows = _complete(batch, size, read)
    read += len(batch["image"])
    ahead = encode_rows(*weights, placement.to_devices(rows, mesh), function=function, mesh=mesh)
    if pending is not None:
      yield _fetch(pending)
    pending = ahead
  if pending is not None:
    yield _fetch(pending)


def remembered() -> Extract:
  """Returns an `extract` that caches its results, for several tasks on the same backbone and data.

  The cache identifies a backbone by object identity, so pass the same object to every task. The cache lives
  as long as the returned function and needs N * D * 4 bytes per split, so create one for each backbone.
  """
  found = {}

  def extract_once(backbone, batches, mesh, *, layer="", grid=1, watch=None):
    name = (id(backbone), batches, mesh, layer, grid)
    if name not in found:
      # The backbone is stored too, so that no other object can get its id.
      found[name] = backbone, extract(backbone, batches, mesh, layer=layer, grid=grid, watch=watch)
    return found[name][1]

  return extract_once


def feature_function(backbone: Backbone, *, layer: str = "", grid: int = 1) -> Callable[..., jax.Array]:
  """Returns the pure function (params, model_state, images f32[B, H, W, 3]) -> f32[B, D].

  Equal arguments give the same function object.
  Raises: ValueError if `grid` is not positive; methods.MissingAbility for a layer of a network without
    Pyramid.
  """
  if grid < 1:
    raise ValueError(f"grid={grid} cells per side; use 1 (the mean over the whole map) or more")
  if not layer:
    return backbone.method.encode
  return _pooled_layer(backbone.ability(Pyramid, f"layer={layer!r}").maps, layer, grid)


@functools.lru_cache(maxsize=None)
def _pooled_layer(pyramid, layer: str, grid: int):
  def features(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
    maps = pyramid(params, model_state, images)
    if layer not in maps:
      raise ValueError(f"unknown layer {layer!r}; this backbone has {', '.join(map(repr, maps))}")
    return pool(maps[layer].astype(jnp.float32), grid).reshape(len(images), -1)

  return features


@functools.partial(jax.jit, static_argnames=("function", "mesh"))
def encode_rows(params, model_state, rows, *, function, mesh):
  """Encodes rows that are sharded over the devices. The results are replicated, so that every process can
  read them.
  """
  x = function(params, model_state, to_float(rows["image"]))
  if x.ndim < 2 or len(x) != len(rows["label"]):
    raise ValueError(
      f"features must be [B, ...] with at least one axis behind the batch axis, but they are {x.shape}"
    )
  out = (x.astype(jnp.float32), rows["label"], rows["index"], rows["valid"])
  return jax.lax.with_sharding_constraint(out, placement.replicated(mesh))


def _complete(batch: dict[str, np.ndarray], size: int, read: int) -> dict[str, np.ndarray]:
  """Returns the four arrays that `encode_rows` takes, padded to `size` rows; padded rows are not valid."""
  images = np.asarray(batch["image"])
  if images.dtype != np.uint8 or images.ndim < 4:
    raise ValueError(
      f"evaluation images must be uint8[B, ..., H, W, 3], but they are {images.dtype}{list(images.shape)}"
    )
  if len(images) > size:
    raise ValueError(
      f"an evaluation batch has {len(images)} rows, but the first one had {size}; use one size for all"
    )
  # Without "index" the numbers are only guaranteed to be distinct.
  first = read + jax.process_index() * (2**31 // jax.process_count())
  rows = {
    "image": images,
    "label": np.asarray(batch["label"], np.int32),
    "index": np.asarray(batch.get("index", np.arange(first, first + len(images))), np.int32),
    "valid": np.asarray(batch.get("valid", np.ones(len(images), bool)), bool),
  }
  short = size - len(images)
  return {name: np.pad(leaf, [(0, short)] + [(0, 0)] * (leaf.ndim - 1)) for name, leaf in rows.items()}


def _fetch(rows) -> Features:
  x, y, index, mask = (np.asarray(leaf) for leaf in rows)
  return Features(x[mask], y[mask], index[mask])


def in_order(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> Features:
  """Sorts rows by their index. Raises ValueError if there is none, or as `extract`."""
  if not len(x):
    raise ValueError("no images to extract features from: no row is valid")
  bad = len(x) - np.isfinite(x.reshape(len(x), -1)).all(axis=1).sum()
  if bad:
    raise ValueError(f"features of {bad} of {len(x)} images are not finite; the checkpoint may have diverged")
  order = np.argsort(index, kind="stable")
  twice = len(x) - len(np.unique(index))
  if twice:
    raise ValueError(
      f"{twice} of {len(x)} evaluation rows were read twice; each process must read its own rows, and padded "
      "rows must not be valid"
    )
  if (order != np.arange(len(order))).any():
    x, y, index = x[order], y[order], index[order]
  return Features(x, y, index)


def _round_up(count: int, multiple: int) -> int:
  return -(-count // multiple) * multiple
