"""The size of a data set that is not present."""

from __future__ import annotations

from ssl_jax.config.schema import TrainConfig
from ssl_jax.core import DataSpec
from ssl_jax.data import splits
from ssl_jax.data.sources import SIZES, TRAIN_SPLITS


def data_of(config: TrainConfig, images: int = 0, classes: int = 0) -> DataSpec:
  """Returns the size of the training data of a config.

  Args:
    images, classes: of the split `config.data.split`; 0: as known for the data set in SIZES.
  Raises: ValueError if the data set or its split is not known and `images` is 0.
  """
  known_images, known_classes = SIZES.get(config.data.name, (0, 0))
  if not (images or known_images):
    raise ValueError(
      f"the number of images of config.data.name {config.data.name!r} is not known here; pass --images=N "
      "--classes=N"
    )
  whole = TRAIN_SPLITS.get(config.data.name, "train")
  if config.data.split == whole:  # which may join several
    images = images or known_images
  if not images and set(splits.names(config.data.split)) != {whole}:
    raise ValueError(
      f"the number of images of config.data.split {config.data.split!r} is not known here, only that of "
      f"{whole!r} and its parts; pass --images=N"
    )
  images = images or sum(len(rows) for _, rows in splits.resolve(config.data.split, {whole: known_images}))
  return DataSpec(images, classes or known_classes, config.batch_size)
