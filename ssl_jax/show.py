"""Pictures of what the network sees."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from ssl_jax.assembly import assemble, host_transform, open_source
from ssl_jax.augment import gallery
from ssl_jax.config import DataSpec, TrainConfig, nearest
from ssl_jax.data import decode

VIEWS = 10  # of the recipe, below the ten operations


def show(words: list[str], config: TrainConfig, output: pathlib.Path, *, index: int = 0, seed: int = 0) -> None:
  """Draws the picture named by the one word in `words` into the PNG `output`.

  Args:
    config: its data is shown, its augmentation applied.
    index: which image of the data set; seed: of the random draws.
  Raises: ValueError for an unknown picture, an image that is not there or a file that is no .png.
  """
  pictures = {"augmentations": _augmentations}
  if len(words) != 1 or words[0] not in pictures:
    raise ValueError(f"`ssl-jax show` takes one picture{nearest(' '.join(words), pictures)}")
  if output.suffix != ".png":
    raise ValueError(f"--output={output} is not a .png file; give it that suffix")
  output.parent.mkdir(parents=True, exist_ok=True)
  pictures[words[0]](config, output, index, jax.random.key(seed))
  print(f"wrote {output}")


def _augmentations(config: TrainConfig, output: pathlib.Path, index: int, key: jax.Array) -> None:
  """One image under each operation of SimCLR's figure 4, and as the recipe shows it to the network."""
  source = open_source(config.data)
  if not 0 <= index < len(source):
    raise ValueError(f"--index={index}: the data set has {len(source)} images; use 0 to {len(source) - 1}")
  record = source[index]["image"]
  image = record if isinstance(record, np.ndarray) else decode.decode(record)
  operations_key, views_key = jax.random.split(key)
  tiles = gallery.gallery(image, operations_key, max(config.augment["size"], 96))
  gallery.draw(tiles + _views(config, len(source), record, views_key), output)


def _views(config: TrainConfig, num_examples: int, image, key: jax.Array) -> list[tuple[str, np.ndarray]]:
  """Views as training makes them, the host's part included."""
  one = DataSpec(max(num_examples, config.batch_size), 1000, config.batch_size)
  augment = jax.jit(assemble(config, one).augment)
  found = []
  for draw in range(-(-VIEWS // config.augment["views"])):
    host = host_transform(config)(np.random.default_rng((0, draw)), image)
    made = augment(jax.random.fold_in(key, draw), {"image": host[None]})
    views = made["views"][0] if "views" in made else made["image"]
    found += [np.asarray(view * 255 + 0.5, np.uint8) for view in views]
  return [(f"{config.augment['name']}, view {i + 1}", view) for i, view in enumerate(found[:VIEWS])]
