"""One image under each of the ten operations of SimCLR's figure 4, as tiles and as a picture."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from ssl_jax.augment import crops, ops

Tile = tuple[str, np.ndarray]  # label, uint8[S, S, 3]


def make_tiles(image: np.ndarray, key: jax.Array, size: int) -> list[Tile]:
  """The ten tiles (a) to (j), every operation applied for certain and, where it has a strength, clearly.

  Args:
    image: uint8[H, W, 3].
    size: side of a tile; all but the crops show the image's centre square.
  Returns: (label, uint8[size, size, 3]) in the order of the figure.
  """
  tiles, quarters = _tiles(jnp.asarray(image), key, size)
  labels = (
    "original",
    "crop and resize",
    "crop, resize and flip",
    "colour drop",
    "colour jitter",
    f"rotate {90 * int(quarters)}°",
    "cutout",
    "Gaussian noise",
    "Gaussian blur",
    "Sobel filter",
  )
  return [(f"({letter}) {label}", tile) for letter, label, tile in zip("abcdefghij", labels, np.array(tiles))]


@functools.partial(jax.jit, static_argnames="size")
def _tiles(image: jax.Array, key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """(uint8[10, size, size, 3], the quarter turns of the rotated one)."""
  keys = jax.random.split(key, 5)
  whole = crops.evaluation_view(image, size=size, crop_ratio=1.0)
  box = crops.sample_crop_tf(keys[0], *image.shape[:2], scale=(0.1, 0.5))
  cropped = crops.crop_resize(image, box, size, method="bicubic")
  quarters = jax.random.randint(keys[1], (), 1, 4)
  sigma = 2.0 * size / 224  # looks as the recipes' strongest does at 224 pixels
  tiles = (
    whole,
    cropped,
    ops.flip(cropped),
    ops.grayscale(whole),
    ops.random_jitter(keys[2], whole, p=1.0),
    ops.rotate(whole, quarters),
    ops.random_cutout(keys[3], whole),
    ops.random_noise(keys[4], whole),
    ops.gaussian_blur(whole, sigma, max_sigma=sigma),
    ops.sobel(whole),
  )
  return jnp.round(jnp.stack(tiles) * 255).astype(jnp.uint8), quarters


def plot_gallery(
  tiles: Sequence[Tile],
  path: str | pathlib.Path,
  *,
  columns: int = 5,
  title: str = "What augmentation does to an image",
) -> None:
  """Writes the tiles as a labelled grid into the PNG `path`, all equally large whatever their size.

  Raises: ValueError if there are none.
  """
  if not tiles:
    raise ValueError("there are no tiles to draw; give at least one")
  rows = -(-len(tiles) // columns)
  figure = matplotlib.figure.Figure(figsize=(2.3 * columns, 2.55 * rows + 0.6), dpi=120, layout="constrained")
  figure.suptitle(title, fontsize=15)
  axes = figure.subplots(rows, columns, squeeze=False)
  for axis in axes.flat:
    axis.axis("off")
  for axis, (label, tile) in zip(axes.flat, tiles):
    axis.imshow(tile, interpolation="nearest")
    axis.set_title(label, fontsize=11)
  figure.savefig(path)
