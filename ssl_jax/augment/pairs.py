"""Recipes that make two views of an image in different ways; options are keyword-only, as in recipes.py."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_jax.augment import crops, ops
from ssl_jax.augment.recipes import Scale, check_views, cropper_of, view_of
from ssl_jax.config.checked import nearest
from ssl_jax.core import Key

Pair = Callable[[Key, jax.Array], jax.Array]  # uint8 or f32 [H, W, 3] -> f32[2, size, size, 3]


def _recrop(key: Key, image: jax.Array) -> jax.Array:
  box = crops.sample_crop_tf(key, *image.shape[:2])
  return crops.crop_resize(image, box, image.shape[0], method="bicubic", antialias=False)


TRANSFORMS: dict[str, Callable[[Key, jax.Array], jax.Array]] = {
  "crop": _recrop,
  "flip": ops.random_flip,
  "grayscale": lambda key, image: ops.grayscale(image, definition="tf"),
  "jitter": functools.partial(ops.random_jitter, p=1.0, definition="tf", additive=True),
  "rotate": ops.random_rotate,
  "cutout": ops.random_cutout,
  "noise": ops.random_noise,
  "blur": functools.partial(ops.random_gaussian_blur, p=1.0, definition="tf"),
  "sobel": lambda key, image: ops.sobel(image),
}


def study(
  *, transforms: tuple[str, ...] = (), size: int = 224, scale: Scale = (0.08, 1.0), one_crop: bool = False
) -> Pair:
  """SimCLR's study of augmentations: two crops, of which only the first is changed by `transforms`, in order.

  Every transform is always applied, except that the flip has probability 1/2: the paper gives no
  probabilities for this study.

  Args:
    transforms: names in TRANSFORMS; "crop" cuts the crop once more, an area in (0.08, 1) of it.
    one_crop: both views begin as the same crop, so that without "crop" among the transforms they show the
      same pixels. The paper says that images are first cropped, not whether twice; its figure 5, in which
      colours alone reach 18.8 and crops with colours 56.3, needs one.
  Raises: ValueError for a name that is not in TRANSFORMS.
  Source: Chen et al. 2020, section 3.1 and figure 5.
  """
  for name in transforms:
    if name not in TRANSFORMS:
      raise ValueError(
        f"config.augment.transforms: no transform is called {name!r}{nearest(name, TRANSFORMS)}"
      )
  cropper = cropper_of(size, scale, "tf", True, method="bicubic", antialias=False, p_flip=0.0)
  cropped = view_of(cropper, lambda key, planes: planes)

  def pair(key: Key, image: jax.Array) -> jax.Array:
    first_key, second_key, *keys = jax.random.split(key, 2 + len(transforms))
    first = cropped(first_key, image)
    second = first if one_crop else cropped(second_key, image)
    for name, key in zip(transforms, keys):
      first = TRANSFORMS[name](key, first)
    return jnp.stack([first, second])

  return pair


def global_local(*, size: int = 224, scale: Scale = (0.4, 1.0), local_scale: Scale = (0.08, 0.4)) -> Pair:
  """A crop and a second crop inside it, which covers a fraction in `local_scale` of the first's area.

  Colours do not change.
  """
  sample = functools.partial(crops.sample_global_local, global_scale=scale, local_scale=local_scale)
  return _pair(sample, size, scale)


def adjacent(*, size: int = 224, scale: Scale = (0.08, 0.5)) -> Pair:
  """Two neighbouring crops of equal size that do not overlap. Colours do not change."""
  return _pair(functools.partial(crops.sample_adjacent, scale=scale), size, scale)


def _pair(sample: Callable, size: int, scale: Scale) -> Pair:
  check_views(size, scale)

  def pair(key: Key, image: jax.Array) -> jax.Array:
    return jnp.stack([crops.crop_resize(image, box, size) for box in sample(key, *image.shape[:2])])

  return pair


PAIRS = {f.__name__: f for f in (study, global_local, adjacent)}
