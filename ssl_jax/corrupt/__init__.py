"""The corruptions of ImageNet-C and CIFAR-10-C on the device: functions `(key, image, severity) -> image`.

They work under jit and vmap. One compiled program serves all five severities, because the tables of
parameters, kernels and matrices are indexed by the severity, which may be traced. Each docstring says whether
a corruption is exact (equal to the reference up to rounding) or a statistical twin (random, with the
reference's distribution).
Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ssl_jax.config.checked import nearest
from ssl_jax.core import Key
from ssl_jax.corrupt import blur, digital, noise, spatter, weather
from ssl_jax.corrupt.linear import truncate

Corruption = Callable[[Key, jax.Array, jax.Array], jax.Array]
LEAST_SIDE = 32  # pixels; the parameters for CIFAR are made for this size

CORRUPTIONS = {  # the fifteen corruptions, in the order of the benchmark
  f.__name__: f
  for f in (
    noise.gaussian_noise,
    noise.shot_noise,
    noise.impulse_noise,
    blur.defocus_blur,
    blur.glass_blur,
    blur.motion_blur,
    blur.zoom_blur,
    weather.snow,
    weather.frost,
    weather.fog,
    digital.brightness,
    digital.contrast,
    digital.elastic_transform,
    digital.pixelate,
    digital.jpeg_compression,
  )
}
EXTRA = {  # the benchmark's four extra corruptions, for validation
  f.__name__: f for f in (noise.speckle_noise, blur.gaussian_blur, spatter.spatter, digital.saturate)
}


def known() -> list[str]:
  """Returns the names of all corruptions: the fifteen in the order of the benchmark, then the extra ones."""
  return [*CORRUPTIONS, *EXTRA]


def make(name: str, *, table: Literal["imagenet", "cifar"] = "imagenet", textures: str = "") -> Corruption:
  """Returns the corruption called `name`, a function (key, image, severity) -> image.

  The image is f32[H, W, 3] in [0, 1], with H and W at least 32; the severity is i32[] from 1 to 5 and may be
  traced. The result has the shape and range of the image and is truncated to whole grey levels, as in the
  released files. Deterministic corruptions ignore the key.

  Args:
    table: the set of parameters: "imagenet" for images of 224 pixels, "cifar" for images of 32 pixels.
    textures: only used by frost: a folder with the original pictures; "" for procedural pictures.
  Raises: ValueError for an unknown name or table, with the known ones. The corruption raises ValueError for
    an image that is too small and for a concrete severity out of range.
  """
  if name not in known():
    raise ValueError(f"no corruption is called {name!r}{nearest(name, known())}")
  if table not in ("imagenet", "cifar"):
    raise ValueError(f"table is {table!r}; use 'imagenet' (224 pixels) or 'cifar' (32)")
  function = functools.partial({**CORRUPTIONS, **EXTRA}[name], table=table)
  if name == "frost":
    function = functools.partial(function, textures=textures)

  def corrupt(key: Key, image: jax.Array, severity) -> jax.Array:
    if not isinstance(severity, Tracer) and not 1 <= int(severity) <= 5:
      raise ValueError(f"severity is {int(severity)}; use 1 to 5")
    if min(image.shape[:2]) < LEAST_SIDE:
      raise ValueError(
        f"{name} needs images of at least {LEAST_SIDE} pixels per side, but this one is {image.shape[0]} x "
        f"{image.shape[1]}; enlarge it first"
      )
    return truncate(function(key, image, jnp.asarray(severity, jnp.int32)))

  return corrupt
