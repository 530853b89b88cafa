"""A few hundred test images with their features and neighbours, small enough to lie beside an evaluation's figures."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ssl_jax.tasks.task import Batches
from ssl_jax.view import pictures

IMAGES, QUERIES, NEIGHBOURS = 600, 8, 5
COMPONENTS = 50  # as before t-SNE [van der Maaten & Hinton 2008, section 4.2]
SIDE, NEIGHBOUR_SIDE = 48, 128  # of what is kept of a larger image, pixels

KnnAtlas = dict[str, np.ndarray]


def make_atlas(
  found: dict[str, np.ndarray], train: Batches, test: Batches, class_names: Sequence[str]
) -> KnnAtlas:
  """What a k-NN search found, for pictures. All processes call it: each has read its share of the images.

  Args:
    found: by test row "label", "prediction", "index", "features" f32[N, D], "neighbours" (places in the training split),
      "neighbour_labels" and "similarity" [N, K].
  Returns: "image" uint8[M, s, s, 3] of M <= 600 test images, as many of each class, s <= 48; "label", "prediction", "index" i32[M];
    "components" f32[M, <= 50], the principal ones of their unit features; "query_image" uint8[Q, t, t, 3], the first Q <= 8 of them,
    t <= 128; "neighbour_image" uint8[Q, K, t, t, 3], "neighbour_label" i32[Q, K] and "similarity" f32[Q, K] of those; "class_names".
  """
  rows = pictures.first_of_each_class(found["label"], IMAGES)
  asked, near = rows[:QUERIES], found["neighbours"][rows[:QUERIES], :NEIGHBOURS]
  images = pictures.images_at(test, found["index"][rows])
  return {
    "image": _small(images, SIDE),
    **{name: found[name][rows].astype(np.int32) for name in ("label", "prediction", "index")},
    "components": _principal(found["features"][rows]),
    "query_image": _small(images[:QUERIES], NEIGHBOUR_SIDE),
    "neighbour_image": _small(pictures.images_at(train, near), NEIGHBOUR_SIDE),
    "neighbour_label": found["neighbour_labels"][asked, :NEIGHBOURS].astype(np.int32),
    "similarity": found["similarity"][asked, :NEIGHBOURS].astype(np.float32),
    "class_names": np.array(class_names, np.str_),
  }


def load_atlas(path: str | pathlib.Path) -> KnnAtlas:
  """What `np.savez_compressed(path, **make_atlas(...))` wrote; nothing in it is executed."""
  with np.load(path, allow_pickle=False) as stored:
    return dict(stored)


def _principal(features: np.ndarray) -> np.ndarray:
  unit = features.astype(np.float64) / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
  u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
  return (u * s)[:, :COMPONENTS].astype(np.float32)


def _small(images: np.ndarray, side: int) -> np.ndarray:
  """Square images uint8[..., H, H, 3], H at most `side`."""
  *counts, height, width, _ = images.shape
  if height <= side:
    return images
  small = [
    np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
    for image in images.reshape(-1, height, width, 3)
  ]
  return np.stack(small).reshape(*counts, side, side, 3)
