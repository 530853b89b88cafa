"""Weather corruptions of an image f32[H, W, 3] in [0, 1]: fog, snow and frost."""

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

FROSTS = 5  # the reference has six photographs but never uses the last
FROST_SIDE = 512


def fog(key, image, severity, *, table):
  """Adds a plasma cloud and rescales such that no value exceeds the old maximum.

  Random: a statistical twin.
  """
  strength, decay = pick(PARAMETERS["fog"][table], severity)
  height, width, _ = image.shape
  cloud = plasma(key, 2 ** math.ceil(math.log2(max(height, width))), decay)[:height, :width, None]
  most = image.max()
  return (image + strength * cloud) * most / (most + strength)


def plasma(key, side: int, decay) -> jax.Array:
  """Returns a height map f32[side, side] in [0, 1] by the diamond-square algorithm on a torus.

  The roughness starts at 100 and is divided by `decay` whenever the step is halved. As in the reference, it
  multiplies a uniform number in [-roughness, roughness), so it enters squared.

  Args:
    side: a power of two.
    decay: f32[].
  """
  heights, step, roughness = jnp.zeros((side, side)), side, jnp.float32(100)

  def perturb(key, total):
    return total / 4 + roughness * roughness * jax.random.uniform(key, total.shape, minval=-1.0)

  while step >= 2:
    square_key, above_key, left_key, key = jax.random.split(key, 4)
    half = step // 2
    corners = heights[::step, ::step]
    four = corners + jnp.roll(corners, -1, 0)
    middles = perturb(square_key, four + jnp.roll(four, -1, 1))
    heights = heights.at[half::step, half::step].set(middles)
    sides = middles + jnp.roll(middles, 1, 0) + corners + jnp.roll(corners, -1, 1)
    heights = heights.at[::step, half::step].set(perturb(above_key, sides))
    sides = middles + jnp.roll(middles, 1, 1) + corners + jnp.roll(corners, -1, 0)
    heights = heights.at[half::step, ::step].set(perturb(left_key, sides))
    step, roughness = half, roughness / decay
  heights = heights - heights.min()
  return heights / heights.max()


def snow(key, image, severity, *, table):
  """Adds flakes, which are enlarged, thresholded and motion-blurred noise, to a whitened image.

  Random: a statistical twin.
  """
  rows = PARAMETERS["snow"][table]
  mean, deviation, _, threshold, radius, sigma, kept = pick(rows, severity)
  flake_key, angle_key = jax.random.split(key)
  flakes = mean + deviation * jax.random.normal(flake_key, (*image.shape[:2], 1))
  flakes = zoom(flakes, np.array([row[2] for row in rows], np.float64), severity - 1)
  flakes = truncate(jnp.where(flakes < threshold, 0.0, flakes))
  angle = jax.random.uniform(angle_key, minval=-135.0, maxval=-45.0)
  flakes = move(flakes, radius, sigma, angle, most=max(row[4] for row in rows))
  flakes = jnp.round(flakes * 255) / 255
  grey = image @ jnp.array([0.299, 0.587, 0.114])
  white = kept * image + (1 - kept) * jnp.maximum(image, grey[..., None] * 1.5 + 0.5)
  return white + flakes + flakes[::-1, ::-1]


def frost(key, image, severity, *, table, textures=""):
  """Adds a random window of a picture of frost to the image.

  By default the pictures are procedural (see `procedural_frost`), because the original photographs may not be
  redistributed. Results are then close to those of ImageNet-C but not the same.

  Args:
    textures: a folder with the original files, frost1 to frost5; "" for the procedural pictures.
  Raises: ValueError if the folder lacks one of the pictures.
  """
  rows = PARAMETERS["frost"][table]
  image_weight, frost_weight = pick(rows, severity)
  pictures = jnp.asarray(_textures(textures, 0.2 if table == "cifar" else 1.0, image.shape[0]))
  which_key, down_key, across_key = jax.random.split(key, 3)
  which = jax.random.randint(which_key, (), 0, len(pictures))
  start = [
    jax.random.randint(k, (), 0, room - side + 1)
    for k, room, side in zip((down_key, across_key), pictures.shape[1:3], image.shape[:2])
  ]
  window = lax.dynamic_slice(pictures, (which, *start, jnp.int32(0)), (1, *image.shape))[0]
  return image_weight * image + frost_weight * window.astype(jnp.float32) / 255


@functools.lru_cache(maxsize=4)
def _textures(folder: str, scale: float, least: int) -> np.ndarray:
  """Returns the pictures scaled by `scale`, uint8[5, h, w, 3], cropped to the smallest of the five sizes.

  Each side of a scaled picture has at least `least` pixels.
  """
  pictures = (
    [Image.fromarray(array) for array in procedural_frost()]
    if not folder
    else [Image.open(_frost_file(folder, i + 1)).convert("RGB") for i in range(FROSTS)]
  )
  scaled = lambda side: max(round(side * scale), least)
  sizes = [(scaled(picture.width), scaled(picture.height)) for picture in pictures]
  pictures = [
    np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) for picture, size in zip(pictures, sizes)
  ]
  height, width = (min(picture.shape[axis] for picture in pictures) for axis in (0, 1))
  return np.stack([picture[:height, :width] for picture in pictures])


def _frost_file(folder: str, number: int) -> pathlib.Path:
  found = sorted(pathlib.Path(folder).glob(f"frost{number}.*"))
  if not found:
    raise ValueError(
      f"{folder} has no picture frost{number}.png or .jpg; it must contain frost1 to frost{FROSTS}. Set "
      "textures='' to use procedural pictures"
    )
  return found[0]


@functools.lru_cache(maxsize=1)
def procedural_frost() -> np.ndarray:
  """Returns five fixed pictures of frost, uint8[5, 512, 512, 3].

  They show bluish white, branching needles of ice at three scales over clouds.
  """
  # numpy guarantees that the draws of RandomState never change.
  return np.stack([_one_frost(np.random.RandomState(seed)) for seed in range(FROSTS)])


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
  """Draws a straight crystal that fades towards its tip, with smaller ones at 60 degrees on both sides."""
  along = np.arange(0, length, 0.5)
  places = (start[:, None] + np.stack([np.sin(angle) * along, np.cos(angle) * along])).astype(
    int
  ) % ice.shape[0]
  np.maximum.at(ice, (places[0], places[1]), bright * (1 - 0.7 * along / length))
  if branches:
    for fraction in np.arange(0.2, 0.9, 0.15):
      root = start + fraction * length * np.array([np.sin(angle), np.cos(angle)])
      for side in (-1, 1):
        _needle(
          ice,
          rng,
          root,
          angle + side * np.pi / 3,
          length * (1 - fraction) * rng.uniform(0.2, 0.5),
          0.8 * bright,
          branches - 1,
        )


def _low_pass(side: int, sigma: float) -> np.ndarray:
  wave = np.fft.fftfreq(side)
  return np.exp(-2 * (np.pi * sigma) ** 2 * (wave[:, None] ** 2 + wave[None] ** 2))
