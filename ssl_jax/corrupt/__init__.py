"""The corruptions of ImageNet-C and CIFAR-10-C on device: `(key, image, severity) -> image`, jitted, vmapped, severity traced.

One compile serves all five severities: tables of parameters, kernels and matrices are indexed by a severity that may be traced.
A docstring says whether a corruption is exact (equal to the reference up to rounding) or a statistical twin (random, with the
reference's distribution).
Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax.config.checked import nearest
from ssl_jax.core import Key
from ssl_jax.corrupt import blur, digital, noise, spatter, weather
from ssl_jax.corrupt.linear import truncate

Corruption = Callable[[Key, jax.Array, jax.Array], jax.Array]
LEAST_SIDE = 32  # pixels: what the smallest table is made for

CORRUPTIONS = {  # the fifteen, in the order of the benchmark
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
EXTRA = {
  f.__name__: f for f in (noise.speckle_noise, blur.gaussian_blur, spatter.spatter, digital.saturate)
}  # for validation


def known() -> list[str]:
  """Names of all corruptions: the fifteen in the order of the benchmark, then the extra ones."""
  return [*CORRUPTIONS, *EXTRA]


def make(name: str, *, table: Literal["imagenet", "cifar"] = "imagenet", textures: str = "") -> Corruption:
  """The corruption called `name`: (key, image, severity) -> image.

  The image is f32[H, W, 3] in [0, 1], H and W at least 32; the severity i32[], 1 to 5, may be traced. The result is cut down to
  whole grey levels (truncated, as released files are). Deterministic ones ignore the key.

  Args:
    table: whose parameters: "imagenet" for 224 pixels, "cifar" for 32.
    textures: of frost: a folder with the original pictures; "": procedural ones.
  Raises: ValueError for an unknown name or table, with the known ones; for a concrete severity out of range or an image too
    small, when called.
  """
  if name not in known():
    raise ValueError(f"no corruption is called {name!r}{nearest(name, known())}")
  if table not in ("imagenet", "cifar"):
    raise ValueError(f"table is {table!r}; use 'imagenet' (224 pixels) or 'cifar' (32)")
  function = functools.partial({**CORRUPTIONS, **EXTRA}[name], table=table)
  if name == "frost":
    function = functools.partial(function, textures=textures)

  def corrupt(key: Key, image: jax.Array, severity) -> jax.Array:
    if not isinstance(severity, jax.core.Tracer) and not 1 <= int(severity) <= 5:
      raise ValueError(f"severity is {int(severity)}; use 1 to 5")
    if min(image.shape[:2]) < LEAST_SIDE:
      raise ValueError(
        f"{name} takes images of {LEAST_SIDE} pixels a side and more, this one is {image.shape[0]} x "
        f"{image.shape[1]}; enlarge it first"
      )
    return truncate(function(key, image, jnp.asarray(severity, jnp.int32)))

  return corrupt
