"""Weather over an image f32[H, W, 3] in [0, 1]."""

from __future__ import annotations

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from ssl_jax.corrupt.linear import move, pick, truncate, zoom
from ssl_jax.corrupt.tables import PARAMETERS

FROSTS = 5  # the reference never uses its sixth photograph
FROST_SIDE = 512


def fog(key, image, severity, *, table):
  """Adds a cloud of plasma and dims to the old maximum. Random: a statistical twin."""
  strength, decay = pick(PARAMETERS["fog"][table], severity)
  height, width, _ = image.shape
  cloud = plasma(key, 2 ** math.ceil(math.log2(max(height, width))), decay)[:height, :width, None]
  most = image.max()
  return (image + strength * cloud) * most / (most + strength)


def plasma(key, side: int, decay) -> jax.Array:
  """f32[side, side] in [0, 1]: a height map by the diamond-square rule on a torus, `side` a power of two.

  Roughness starts at 100 and is divided by `decay` at every halving; it multiplies a uniform number of that half-width, so it
  counts squared, as in the reference.
  """
  heights, step, wibble = jnp.zeros((side, side)), side, jnp.float32(100)

  def rough(key, total):
    return total / 4 + wibble * wibble * jax.random.uniform(key, total.shape, minval=-1.0)

  while step >= 2:
    square_key, above_key, left_key, key = jax.random.split(key, 4)
    half = step // 2
    corners = heights[::step, ::step]
    four = corners + jnp.roll(corners, -1, 0)
    middles = rough(square_key, four + jnp.roll(four, -1, 1))
    heights = heights.at[half::step, half::step].set(middles)
    sides = middles + jnp.roll(middles, 1, 0) + corners + jnp.roll(corners, -1, 1)
    heights = heights.at[::step, half::step].set(rough(above_key, sides))
    sides = middles + jnp.roll(middles, 1, 1) + corners + jnp.roll(corners, -1, 0)
    heights = heights.at[half::step, ::step].set(rough(left_key, sides))
    step, wibble = half, wibble / decay
  heights = heights - heights.min()
  return heights / heights.max()


def snow(key, image, severity, *, table):
  """Flakes of thresholded noise, enlarged and blown along, over a whitened image. Random: a statistical twin."""
  rows = PARAMETERS["snow"][table]
  mean, deviation, factor, threshold, radius, sigma, kept = pick(rows, severity)
  flake_key, angle_key = jax.random.split(key)
  flakes = zoom(mean + deviation * jax.random.normal(flake_key, (*image.shape[:2], 1)), factor)
  flakes = truncate(jnp.where(flakes < threshold, 0.0, flakes))
  angle = jax.random.uniform(angle_key, minval=-135.0, maxval=-45.0)
  flakes = move(flakes, radius, sigma, angle, most=max(row[4] for row in rows))
  flakes = jnp.round(flakes * 255) / 255
  grey = image @ jnp.array([0.299, 0.587, 0.114])
  white = kept * image + (1 - kept) * jnp.maximum(image, grey[..., None] * 1.5 + 0.5)
  return white + flakes + flakes[::-1, ::-1]


def frost(key, image, severity, *, table, textures=""):
  """A window of a picture of frost over the image.

  By default the pictures are procedural (see `procedural_frost`), for the photographs may not be redistributed: figures are then
  near those of ImageNet-C but not the same. `textures` names a folder with the original files, frost1 to frost5.
  """
  rows = PARAMETERS["frost"][table]
  own, cold = pick(rows, severity)
  pictures = jnp.asarray(_textures(textures, 0.2 if table == "cifar" else 1.0, image.shape[0]))
  which_key, down_key, across_key = jax.random.split(key, 3)
  which = jax.random.randint(which_key, (), 0, len(pictures))
  start = [
    jax.random.randint(k, (), 0, room - side + 1)
    for k, room, side in zip((down_key, across_key), pictures.shape[1:3], image.shape[:2])
  ]
  window = lax.dynamic_slice(pictures, (which, *start, jnp.int32(0)), (1, *image.shape))[0]
  return own * image + cold * window.astype(jnp.float32) / 255


@functools.lru_cache(maxsize=4)
def _textures(folder: str, scale: float, least: int) -> np.ndarray:
  """uint8[5, h, w, 3], all of one size: the smallest of the five, at least `least`."""
  pictures = (
    [Image.fromarray(array) for array in procedural_frost()]
    if not folder
    else [Image.open(_frost_file(folder, i + 1)).convert("RGB") for i in range(FROSTS)]
  )
  sizes = [tuple(max(round(side * scale), least) for side in picture.size) for picture in pictures]
  pictures = [
    np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) for picture, size in zip(pictures, sizes)
  ]
  height, width = (min(picture.shape[axis] for picture in pictures) for axis in (0, 1))
  return np.stack([picture[:height, :width] for picture in pictures])


def _frost_file(folder: str, number: int) -> pathlib.Path:
  found = sorted(pathlib.Path(folder).glob(f"frost{number}.*"))
  if not found:
    raise ValueError(
      f"{folder} has no picture frost{number}.png or .jpg; it must hold frost1 to frost{FROSTS}, or leave the "
      "folder out for procedural ones"
    )
  return found[0]


@functools.lru_cache(maxsize=1)
def procedural_frost() -> np.ndarray:
  """uint8[5, 512, 512, 3]: needles of ice that branch, at three scales, over clouds; bluish white, the same for ever."""
  return np.stack(
    [_one_frost(np.random.RandomState(seed)) for seed in range(FROSTS)]
  )  # RandomState: its draws are frozen


def _one_frost(rng) -> np.ndarray:
  side = FROST_SIDE
  ice = np.zeros((side, side))
  for length, count, bright in ((150, 14, 0.9), (70, 60, 0.7), (30, 240, 0.5)):
    for _ in range(count):
      _needle(
        ice,
        rng,
        rng.uniform(0, side, 2),
        rng.uniform(0, 2 * np.pi),
        length * rng.uniform(0.6, 1.2),
        bright,
        2,
      )
  soft = np.real(np.fft.ifft2(np.fft.fft2(ice) * _low_pass(side, 0.8)))
  clouds = np.real(np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * _low_pass(side, 24)))
  clouds = (clouds - clouds.mean()) / clouds.std()
  light = 0.75 * soft + 0.22 * clouds
  light = 0.45 + 0.24 * (light - light.mean()) / light.std()
  tint = np.array([0.92, 1.0, 1.08])
  return (np.clip(light[..., None] * tint, 0, 1) * 255).astype(np.uint8)


def _needle(ice, rng, start, angle, length, bright, branches) -> None:
  """A straight crystal that fades towards its tip, with smaller ones at 60 degrees on both sides."""
  along = np.arange(0, length, 0.5)
  places = (start[:, None] + np.stack([np.sin(angle) * along, np.cos(angle) * along])).astype(
    int
  ) % ice.shape[0]
  np.maximum.at(ice, (places[0], places[1]), bright * (1 - 0.7 * along / length))
  if branches:
    for share in np.arange(0.2, 0.9, 0.15):
      root = start + share * length * np.array([np.sin(angle), np.cos(angle)])
      for side in (-1, 1):
        _needle(
          ice,
          rng,
          root,
          angle + side * np.pi / 3,
          length * (1 - share) * rng.uniform(0.2, 0.5),
          0.8 * bright,
          branches - 1,
        )


def _low_pass(side: int, sigma: float) -> np.ndarray:
  wave = np.fft.fftfreq(side)
  return np.exp(-2 * (np.pi * sigma) ** 2 * (wave[:, None] ** 2 + wave[None] ** 2))
