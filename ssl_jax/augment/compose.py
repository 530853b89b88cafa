"""From a recipe for one image to an `Augment` for a batch, each image with a key of its own.

On accelerators a batch is one vectorised program. On CPU it is a loop over the views, several times faster:
an image stays in the cache, and what is not drawn for it (half of the blurs, three quarters of a jitter's
slots) is not computed.
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

from ssl_jax.augment import crops, recipes
from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.core import Augment, Batch, Key


def known() -> list[str]:
  """Names of all recipes, sorted."""
  return sorted({**recipes.VIEWS, **recipes.PAIRS})


def factory(name: str) -> Callable[..., Augment]:
  """The function `(*, views, size, scale, ...) -> Augment` of the recipe `name`: its options and `views`.

  Raises: ValueError with the nearest known names.
  """
  if name not in known():
    raise ValueError(f"config.augment.name: no augmentation is called {name!r}{nearest(name, known())}")
  recipe = {**recipes.VIEWS, **recipes.PAIRS}[name]

  def make_augment(*, views, **options) -> Augment:
    _check_views(name, views)
    made = recipe(**options)
    apply = _every_view(made, views) if name in recipes.VIEWS else functools.partial(for_each, made)
    return _batched(apply, views, crop=options.get("crop", True))

  inherited = inspect.signature(recipe).parameters.values()
  views = inspect.Parameter("views", inspect.Parameter.KEYWORD_ONLY, annotation=int)
  make_augment.__signature__ = inspect.Signature([views, *inherited])
  make_augment.__annotations__ = {**get_type_hints(recipe), "views": int}
  return make_augment


def make(name: str, **options) -> Augment:
  """Builds the augmentation of a batch from the recipe `name`; `views` is the one option without a default.

  The Augment takes {"image": uint8[B, H, W, 3], ...}, or uint8[B, V, S, S, 3] when `crop=False` because the
  host cut the views, and returns {"views": f32[B, V, size, size, 3]}, or {"image": f32[B, size, size, 3]} for
  one view, in [0, 1]; every other entry passes through. Image i of the global batch is drawn from
  fold_in(key, i).

  Raises: ValueError for an unknown name or option or one of the wrong type, naming the nearest known ones;
    the Augment, when traced, for a batch without "image" or of a shape that does not fit `crop` and `views`.
  """
  return call_checked(factory(name), options, "config.augment")


def evaluation(
  *, size: int, crop_ratio: float = 0.875, method: Literal["bilinear", "bicubic"] = "bicubic"
) -> Augment:
  """The Augment of evaluation: `crops.evaluation_view` of each image, no randomness."""
  view = functools.partial(crops.evaluation_view, size=size, crop_ratio=crop_ratio, method=method)
  return lambda key, batch: {**batch, "image": for_each(view, _image(batch))}


def _check_views(name: str, views: int) -> None:
  if views < 1:
    raise ValueError(f"config.augment.views is {views}; use at least 1")
  if name in recipes.PAIRS and views != 2:
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


def _image(batch: Batch) -> jax.Array:
  if "image" not in batch:
    raise ValueError(f"the batch has no 'image' to augment, only {', '.join(map(repr, sorted(batch)))}")
  return jnp.asarray(batch["image"])


def _check_shape(shape: tuple[int, ...], views: int, crop: bool) -> None:
  if crop and len(shape) != 4:
    raise ValueError(
      f"batch['image'] is {list(shape)}, but a recipe that crops takes whole images "
      "[B, H, W, 3]; if the host cut the views, set crop=False"
    )
  if not crop and shape[1:-3] != (views,) and not (views == 1 and len(shape) == 4):
    raise ValueError(
      f"batch['image'] is {list(shape)}, but with crop=False and views={views} it must be "
      f"[B, {views}, S, S, 3]; have the host cut as many views, or set crop=True"
    )


def _every_view(view: recipes.View, views: int) -> Callable:
  """(keys [B], images [B, H, W, 3] or host-cut views [B, V, S, S, 3]) -> f32[B, V, size, size, 3]."""

  def in_turn(keys: jax.Array, images: jax.Array) -> jax.Array:
    per_source = keys.size // math.prod(images.shape[:-3])  # views made from each array that the host sent
    sources = images.reshape(-1, *images.shape[-3:])
    one = lambda row: view(row[0], sources[row[1] // per_source])
    out = lax.map(one, (keys.ravel(), jnp.arange(keys.size)))
    return out.reshape(*keys.shape, *out.shape[1:])

  def together(keys: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(jax.vmap(view, (0, 0 if images.ndim == 5 else None)))(keys, images)

  def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
    keys = jax.vmap(lambda key: jax.random.split(key, views))(keys)
    return _fastest(in_turn, together, keys, images)

  return apply


def for_each(function: Callable, *arrays) -> jax.Array:
  """`function` of every row of the arrays, stacked; on one CPU device row by row, see above."""
  return _fastest(lambda *rows: lax.map(lambda row: function(*row), rows), jax.vmap(function), *arrays)


def _fastest(in_turn: Callable, together: Callable, *arrays) -> jax.Array:
  """On CPU the loop, unless it plays several devices, from which rows would be fetched one by one."""
  if jax.device_count() > 1:
    return together(*arrays)
  return lax.platform_dependent(*arrays, cpu=in_turn, default=together)
