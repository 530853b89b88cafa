"""The picture `augmentations`: one image under ten augmentations, and the views that a recipe makes of it."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

from ssl_jax.augment import crops, ops
from ssl_jax.config.schema import TrainConfig
from ssl_jax.core import DataSpec
from ssl_jax.data import decode
from ssl_jax.data.elements import Record, Transform, host_batch
from ssl_jax.run.assembly import assemble
from ssl_jax.view.detection import draw_boxes
from ssl_jax.view.request import PictureRequest, open_images, to_bytes
from ssl_jax.view.segmentation import overlay

VIEWS = 10  # of the recipe, shown below the ten operations
LEAST_TILE = 96  # smallest side of the tiles of the operations, pixels

Tile = tuple[str, np.ndarray]  # label, uint8[S, S, 3]


def show_augmentations(request: PictureRequest, output: pathlib.Path) -> None:
  """Draws one image under each operation of SimCLR's figure 4, and the views that the recipe makes of it.

  Raises: ValueError for an index out of range and for wrong options of the config.
  """
  config = cast(TrainConfig, request.config)
  source, transform = open_images(config, request.index, 1)
  record = source[request.index]
  image = record["image"]
  image = image if isinstance(image, np.ndarray) else decode.decode(image)
  operations_key, views_key = jax.random.split(jax.random.key(request.seed))
  tiles = make_tiles(image, operations_key, max(config.augment["size"], LEAST_TILE))
  plot_gallery(tiles + _views(config, transform, record, len(source), views_key), output)


def make_tiles(image: np.ndarray, key: jax.Array, size: int) -> list[Tile]:
  """Makes the ten tiles (a) to (j). Every operation is always applied, at a strength that is easy to see.

  Args:
    image: uint8[H, W, 3].
    size: side of a tile in pixels. All tiles but the crops show the centre square of the image.
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


def plot_gallery(
  tiles: Sequence[Tile],
  path: str | pathlib.Path,
  *,
  columns: int = 5,
  title: str = "What augmentation does to an image",
) -> None:
  """Writes a PNG with the tiles in a labelled grid. All tiles are drawn equally large, whatever their size.

  The folder of `path` is created if it does not exist.
  Raises: ValueError if there are no tiles.
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
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)


@functools.partial(jax.jit, static_argnames="size")
def _tiles(image: jax.Array, key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """(uint8[10, size, size, 3], the number of quarter turns of the rotated tile)."""
  keys = jax.random.split(key, 5)
  whole = crops.evaluation_view(image, size=size, crop_ratio=1.0)
  box = crops.sample_crop_tf(keys[0], *image.shape[:2], scale=(0.1, 0.5))
  cropped = crops.crop_resize(image, box, size, method="bicubic")
  quarters = jax.random.randint(keys[1], (), 1, 4)
  sigma = 2.0 * size / 224  # the strongest blur of the recipes is 2 pixels at a size of 224
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


def _views(
  config: TrainConfig, transform: Transform, record: Record, num_examples: int, key: jax.Array
) -> list[Tile]:
  """VIEWS views of a record, made as in training: by the host transform, then by the augmentation."""
  data = DataSpec(max(num_examples, config.batch_size), 1000, config.batch_size)
  augment = jax.jit(assemble(config, data).augment)
  views = []
  for draw in range(-(-VIEWS // config.augment["views"])):
    batch = host_batch(transform, [record], [np.random.default_rng((0, draw))])
    made = augment(jax.random.fold_in(key, draw), batch)
    pixels = to_bytes(made["views"][0] if "views" in made else made["image"])
    views += _annotated(pixels, {name: np.asarray(leaf) for name, leaf in made.items()})
  return [(f"{config.augment['name']}, view {i + 1}", view) for i, view in enumerate(views[:VIEWS])]


def _annotated(pixels: np.ndarray, made: Mapping[str, np.ndarray]) -> list[np.ndarray]:
  """The views with their masks or boxes, if they have any."""
  if "mask" in made:
    return [overlay(view, mask) for view, mask in zip(pixels, made["mask"], strict=True)]
  if "boxes" in made:
    rows = zip(pixels, made["boxes"], made["boxes_class"], made["boxes_valid"], strict=True)
    return [draw_boxes(view, boxes[valid], numbers[valid]) for view, boxes, numbers, valid in rows]
  return list(pixels)
