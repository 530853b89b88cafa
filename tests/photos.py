"""Folders of small photos whose sizes differ, and a tiny run."""

import functools
import pathlib

import numpy as np
from PIL import Image

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from tests.recipes import save

COLOURS = {"apple": (200, 40, 30), "leaf": (30, 160, 60), "sky": (90, 140, 230)}


def write_photo(path: pathlib.Path, colour: tuple[int, int, int], seed: int) -> None:
  """A photo of random size around a colour."""
  rng = np.random.default_rng(seed)
  size = (*rng.integers(18, 60, 2), 3)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.clip(rng.normal(colour, 25, size), 0, 255).astype(np.uint8)).save(path)


def write_photos(folder: pathlib.Path, *, each: int, classes: bool = True, first: int = 0) -> pathlib.Path:
  """Writes `each` photos of three colours, in class folders or not."""
  for number, (name, colour) in enumerate(COLOURS.items()):
    for i in range(each):
      file = folder / name / f"{i:02}.jpg" if classes else folder / f"{name}{i:02}.jpg"
      write_photo(file, colour, first + 100 * number + i)
  return folder


@functools.cache
def tiny(method: str = "moco") -> TrainConfig:
  """A run of a small network on images of 16 pixels."""
  options = {
    "moco": dict(name="moco", dim=16, mlp=True, queue_size=64, momentum=0.9, temperature=0.2),
    "supervised": dict(name="supervised"),
  }[method]
  return check(
    TrainConfig,
    recipe(
      method=options,
      encoder=dict(name="resnet10", width=8, stem="small"),
      augment=dict(name="none", views=2 if method == "moco" else 1, size=16),
      optimizer=dict(learning_rate=0.05),
      data=dict(name="synthetic", split="train[:128]", size=16, cache=True),
      batch_size=32,
      epochs=1.0,
    ),
  )


def saved_run(path: pathlib.Path, method: str = "moco") -> pathlib.Path:
  """Saves an untrained checkpoint of `tiny`."""
  return save(tiny(method), path)
