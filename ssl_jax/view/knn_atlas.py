"""The atlas of a k-NN search: a few hundred test images with their features and neighbours, for pictures.

It is small enough to be stored beside the results of an evaluation, so that a report needs neither the
network nor the data.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from ssl_jax.log.run_log import read_npz
from ssl_jax.tasks.task import Batches

IMAGES, QUERIES, NEIGHBOURS = 600, 8, 5  # at most: test images, those with neighbours, neighbours of each
COMPONENTS = 50  # dimensions that t-SNE starts from, as in van der Maaten & Hinton 2008, section 4.2
SIDE, NEIGHBOUR_SIDE = 48, 128  # to which larger test images, and queries and neighbours, are reduced; pixels

KnnAtlas = dict[str, np.ndarray]


def make_atlas(
  found: dict[str, np.ndarray], train: Batches, test: Batches, class_names: Sequence[str]
) -> KnnAtlas:
  """Selects from the result of a k-NN search what pictures need.

  All processes must call it, because each process reads its own part of the images.

  Args:
    found: by test row "label", "prediction" and "index" i32[N], "features" f32[N, D], "neighbours" (positions
      in the training split), "neighbour_labels" and "similarity" [N, K].
    train, test: the splits that were searched.
  Returns:
    "image": uint8[M, s, s, 3], M <= 600 test images, as many of each class as possible, s <= 48.
    "label", "prediction", "index": i32[M].
    "components": f32[M, <= 50], the principal components of the images' unit-norm features.
    "query_image": uint8[Q, t, t, 3], the first Q <= 8 of the test images, t <= 128.
    "neighbour_image": uint8[Q, K, t, t, 3], K <= 5; "neighbour_label": i32[Q, K]; "similarity": f32[Q, K].
    "class_names": strings, by class.
  """
  rows = first_of_each_class(found["label"], IMAGES)
  queries, near = rows[:QUERIES], found["neighbours"][rows[:QUERIES], :NEIGHBOURS]
  images = images_at(test, found["index"][rows])
  return {
    "image": _shrink(images, SIDE),
    **{name: found[name][rows].astype(np.int32) for name in ("label", "prediction", "index")},
    "components": _principal_components(found["features"][rows]),
    "query_image": _shrink(images[:QUERIES], NEIGHBOUR_SIDE),
    "neighbour_image": _shrink(images_at(train, near), NEIGHBOUR_SIDE),
    "neighbour_label": found["neighbour_labels"][queries, :NEIGHBOURS].astype(np.int32),
    "similarity": found["similarity"][queries, :NEIGHBOURS].astype(np.float32),
    "class_names": np.array(class_names, np.str_),
  }


def load_atlas(path: str | pathlib.Path) -> KnnAtlas:
  """Reads what `np.savez_compressed(path, **make_atlas(...))` wrote.

  Raises: ValueError for a damaged file, or one with pickled objects, which are never loaded because that
    could run code.
  """
  return read_npz(path, "delete it and evaluate again")


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
  """i64[<= count]: the first row of each class, then the second row of each class, and so on."""
  order = np.argsort(labels, kind="stable")
  sorted_labels = labels[order]
  turn = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
  return order[np.lexsort((sorted_labels, turn))][:count]


def images_at(batches: Batches, indices: np.ndarray) -> np.ndarray:
  """uint8[*indices.shape, H, W, 3]: the images at these positions of a split, the same on all processes.

  All processes must call it. Each reads its own part of the split; a collective joins what they found.

  Args:
    indices: i32[...], as in `Features.index`.
  Raises: ValueError if an index does not occur.
  """
  wanted, where = np.unique(indices, return_inverse=True)
  found, images, read = np.zeros(len(wanted), bool), None, 0
  for batch in batches():
    index = np.asarray(batch.get("index", np.arange(read, read + len(batch["image"]))))
    read += len(index)
    take = np.isin(index, wanted) & np.asarray(batch.get("valid", np.ones(len(index), bool)))
    images = np.zeros((len(wanted), *batch["image"].shape[1:]), np.uint8) if images is None else images
    places = np.searchsorted(wanted, index[take])
    images[places], found[places] = batch["image"][take], True
    if found.all() and jax.process_count() == 1:
      break
  if jax.process_count() > 1:  # rows that another process found are zero here
    images, found = (leaf.max(axis=0) for leaf in multihost_utils.process_allgather((images, found)))
  if not found.all():
    raise ValueError(
      f"{(~found).sum()} of {len(wanted)} image numbers are not in the split, the first is "
      f'{wanted[~found][0]}; with several processes batches need an "index"'
    )
  return cast(np.ndarray, images)[where.reshape(indices.shape)]


def _principal_components(features: np.ndarray) -> np.ndarray:
  """f32[N, <= COMPONENTS]: coordinates of the unit-norm features f[N, D] along their principal axes."""
  unit = features.astype(np.float64) / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
  u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
  return (u * s)[:, :COMPONENTS].astype(np.float32)


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
  """Square images uint8[..., H, H, 3], reduced to `side` if H is larger."""
  *counts, height, width, _ = images.shape
  if height <= side:
    return images
  small = [
    np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
    for image in images.reshape(-1, height, width, 3)
  ]
  return np.stack(small).reshape(*counts, side, side, 3)
