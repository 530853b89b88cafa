"""Turns a recipe for one image into an `Augment` for a batch, in which every image has its own random key.

On accelerators the whole batch is one vectorised program. On CPU it is a loop over the views, which is
several times faster there: an image stays in the cache, and operations that were not drawn for it (half of
the blurs, three quarters of the slots of a colour jitter) are not computed.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Literal, get_type_hints

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.augment import crops, pairs, recipes, records
from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import Augment, Batch, Key, PyTree

_ALL = {**recipes.VIEWS, **pairs.PAIRS, **records.RECORDS}


def known() -> list[str]:
  """Returns the names of all recipes, sorted."""
  return sorted(_ALL)


def factory(name: str) -> Callable[..., Augment]:
  """Returns the function `(*, views, size, scale, ...) -> Augment` that builds the augmentation `name`.

  Its keyword arguments are the options of the recipe and `views`, the number of views per image.

  Raises: ValueError for an unknown name; the message suggests the nearest known names.
  """
  if name not in known():
    raise ValueError(f"config.augment.name: no augmentation is called {name!r}{nearest(name, known())}")
  recipe = _ALL[name]

  def make_augment(*, views, **options) -> Augment:
    _check_views(name, views)
    made = recipe(**options)
    if name in records.RECORDS:
      return _batched_records(made)
    apply = _every_view(made, views) if name in recipes.VIEWS else functools.partial(for_each, made)
    return _batched(apply, views, crop=options.get("crop", True))

  inherited = inspect.signature(recipe).parameters.values()
  views = inspect.Parameter("views", inspect.Parameter.KEYWORD_ONLY, annotation=int)
  make_augment.__signature__ = inspect.Signature([views, *inherited])
  make_augment.__annotations__ = {**get_type_hints(recipe), "views": int}
  return make_augment


def make(name: str, **options) -> Augment:
  """Builds the augmentation of a batch from the recipe `name`.

  The Augment takes {"image": uint8[B, H, W, 3], ...}, or uint8[B, V, S, S, 3] with `crop=False`, where the
  host has already cropped the views. It returns {"views": f32[B, V, size, size, 3], ...}, or
  {"image": f32[B, size, size, 3], ...} for a single view, with values in [0, 1]; all other entries of the
  batch are passed through. Image i of the global batch uses the random key fold_in(key, i).
  The recipes of records.py move masks, boxes, points and clips with the image and make one view.

  Args:
    options: the options of the recipe and `views`, which is the only one without a default.
  Raises: ValueError for an unknown name or option, or an option of the wrong type; the message suggests the
    nearest known ones. The Augment raises ValueError when it is traced with a batch that has no "image" or
    whose shape does not fit `crop` and `views`.
  """
  return call_checked(factory(name), options, "config.augment")


def evaluation(
  *, size: int, crop_ratio: float = 0.875, method: Literal["bilinear", "bicubic"] = "bicubic"
) -> Augment:
  """Returns the Augment for evaluation: `crops.evaluation_view` of each image, without randomness."""
  view = functools.partial(crops.evaluation_view, size=size, crop_ratio=crop_ratio, method=method)
  return lambda key, batch: {**batch, "image": for_each(view, _image(batch))}


def _check_views(name: str, views: int) -> None:
  if views < 1:
    raise ValueError(f"config.augment.views is {views}; use at least 1")
  if name in records.RECORDS and views != 1:
    raise ValueError(f"config.augment.views is {views}, but {name!r} moves whole records; use views=1")
  if name in pairs.PAIRS and views != 2:
    raise ValueError(f"config.augment.views is {views}, but {name!r} makes pairs; use views=2")


def _batched(apply: Callable, views: int, *, crop: bool) -> Augment:
  def augment(key: Key, batch: Batch) -> Batch:
    images = _image(batch)
    _check_shape(images.shape, views, crop)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
    out = apply(keys, images)
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**rest, "views": out} if views > 1 else {**rest, "image": out[:, 0]}

  return augment


def _batched_records(one: records.RecordAugment) -> Augment:
  """The augmentation of a batch of whole records: record i of the global batch uses fold_in(key, i)."""

  def augment(key: Key, batch: Batch) -> Batch:
    arrays = {name: jnp.asarray(leaf) for name, leaf in batch.items()}
    count = len(next(iter(arrays.values())))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return for_each(one, keys, arrays)

  return augment


def _image(batch: Batch) -> jax.Array:
  if "image" not in batch:
    raise ValueError(
      f"the batch has no 'image' to augment; it only has {', '.join(map(repr, sorted(batch)))}"
    )
  return jnp.asarray(batch["image"])


def _check_shape(shape: tuple[int, ...], views: int, crop: bool) -> None:
  if crop and len(shape) != 4:
    raise ValueError(
      f"batch['image'] has the shape {list(shape)}, but with crop=True it must hold whole images "
      "[B, H, W, 3]; set crop=False if the host has already cropped the views"
    )
  if not crop and shape[1:-3] != (views,) and not (views == 1 and len(shape) == 4):
    raise ValueError(
      f"batch['image'] has the shape {list(shape)}, but with crop=False and views={views} it must be "
      f"[B, {views}, S, S, 3]; let the host crop that many views, or set crop=True"
    )


def _every_view(view: recipes.View, views: int) -> Callable:
  """Returns a function of (keys [B], images) that makes all views, f32[B, V, size, size, 3].

  The images are [B, H, W, 3], or [B, V, S, S, 3] where the host has already cropped the views.
  """

  def looped(keys: jax.Array, images: jax.Array) -> jax.Array:
    # Views made from each array [H, W, 3]: V from a whole image, 1 from a view that the host has cropped.
    per_source = keys.size // math.prod(images.shape[:-3])
    sources = images.reshape(-1, *images.shape[-3:])
    one = lambda row: view(row[0], sources[row[1] // per_source])
    out = lax.map(one, (keys.ravel(), jnp.arange(keys.size)))
    return out.reshape(*keys.shape, *out.shape[1:])

  def vectorised(keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(jax.vmap(view, (0, 0 if images.ndim == 5 else None)))(keys, images)

  def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
    keys = jax.vmap(lambda key: jax.random.split(key, views))(keys)
    return _loop_or_vmap(looped, vectorised, keys, images)

  return apply


def for_each(function: Callable, *arrays) -> PyTree:
  """Applies `function` to every row of the arrays and stacks the results.

  This is a loop over the rows on a single CPU device and a `vmap` elsewhere; the module docstring says why.
  """
  return _loop_or_vmap(lambda *rows: lax.map(lambda row: function(*row), rows), jax.vmap(function), *arrays)


def _loop_or_vmap(looped: Callable, vectorised: Callable, *arrays) -> PyTree:
  """Calls `looped` on CPU and `vectorised` on any other platform, with the same arrays.

  With several devices `vectorised` is used on CPU too: a loop over a sharded batch axis would fetch its rows
  from the other devices one by one.
  """
  if jax.device_count() > 1:
    return vectorised(*arrays)
  return lax.platform_dependent(*arrays, cpu=looped, default=vectorised)
