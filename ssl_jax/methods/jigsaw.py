"""Jigsaw puzzles: predict which of N known permutations has shuffled the nine tiles of an image."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import PretextExamples
from ssl_jax.core import DataSpec, Method
from ssl_jax.methods.pretext import pretext_template, tile_grid
from ssl_jax.models import Network, heads, network

ABILITIES = pretext_template.ABILITIES
TILES = 9


def make(
  encoder: Network,
  data: DataSpec,
  *,
  permutations: int = 1000,
  selection: Literal["mean", "minimum"] = "mean",
  permutation_seed: int = 0,
  tile: int = 64,
  gap: int = 21,
  jitter: int = 21,
  grey: float = 0.66,
  project: float = 0.0,
  channel_jitter: int = 0,
  width: int = 1000,
) -> Method:
  """N-way classification of the permutation. One network encodes every tile separately.

  Every channel of every tile is standardised to mean 0 and deviation 1, and so is an image in evaluation; use
  an encoder with normalize='centred'.

  Args:
    encoder: the image network.
    data: not used; all methods have the same signature.
    permutations, selection, permutation_seed: see `permutation_set`; these three determine the set of a run.
    tile, gap, jitter: in pixels, see tile_grid.Grid. The published values are 64, 21, 21 in images of 255
      pixels.
    grey: probability that an image is converted to grey; 0.5 in the released code, 0.66 in the ResNet-50
      recipe.
    project: probability that an image which is not grey loses its green-magenta component; 0.5 in the
      released code, 0 in the ResNet-50 recipe.
    channel_jitter: largest displacement in pixels between the colour channels of an image; the side of the
      image shrinks by as many pixels. 2 in the released code.
    width: number of features that each tile contributes to the joint classifier.
  Raises: ValueError for a permutation set that does not exist or sizes that do not form a grid; when traced,
    if the grid does not fit the image.
  Source: Noroozi & Favaro 2016, algorithm 1 and released code; Goyal et al. 2019 for ResNet-50.
  """
  grid = tile_grid.Grid(tile, gap, jitter).check()
  orders = jnp.asarray(permutation_set(permutations, selection, permutation_seed))

  def make_task(key: jax.Array, images: jax.Array) -> PretextExamples:
    which_key, place_key, grey_key, project_key, channel_key = jax.random.split(key, 5)
    images = tile_grid.shift_channels(channel_key, images, channel_jitter)
    if project:
      images = jnp.where(
        jax.random.bernoulli(project_key, project, (len(images), 1, 1, 1)), tile_grid.project(images), images
      )
    images = tile_grid.random_grey(grey_key, images, grey)
    which = jax.random.randint(which_key, (len(images),), 0, permutations)
    corners = tile_grid.sample_corners(place_key, len(images), grid, images.shape[1])
    shuffled = jnp.take_along_axis(corners, orders[which][..., None], axis=1)  # slot t shows tile order[t]
    return PretextExamples(
      tile_grid.standardize(tile_grid.cut_tiles(images, shuffled, tile)),
      which[:, None],
      tuple(f"slot {slot}" for slot in range(TILES)),
      "number of the permutation",
    )

  return pretext_template.make_pretext_method(
    encoder,
    network(heads.Puzzle(permutations, width)),
    make_task,
    pretext_template.score_classes,
    prepare=tile_grid.standardize,
  )


@functools.lru_cache(maxsize=8)
def permutation_set(count: int, selection: str = "mean", seed: int = 0) -> np.ndarray:
  """i32[count, 9]: distinct permutations that are far apart in Hamming distance, chosen greedily.

  After the first one, each step adds the one of all 9! permutations whose mean distance to those already
  chosen is largest ("mean", as in the released code; two permutations may then differ in only two places), or
  whose smallest distance to them is largest ("minimum"). Ties go to the lexicographically first permutation.

  Args:
    count: number of permutations, 2 to 9!.
    selection: "mean" or "minimum".
    seed: determines the first permutation: number seed * 104,729 + 1 in lexicographic order, modulo 9!.
      Nothing else is random.
  Raises: ValueError for a count outside [2, 9!].
  Source: Noroozi & Favaro 2016, algorithm 1.
  """
  if not 2 <= count <= math.factorial(TILES):
    raise ValueError(
      f"config.method.permutations is {count}; use 2 to {math.factorial(TILES)}, such as 100 or 1000"
    )
  every = np.array(list(itertools.permutations(range(TILES))), np.uint8)
  columns = np.ascontiguousarray(every.T)
  chosen = [(seed * 104_729 + 1) % len(every)]
  score = np.zeros(len(every), np.int32) if selection == "mean" else np.full(len(every), TILES, np.int32)
  for _ in range(count - 1):
    distance = sum((column != column[chosen[-1]]).astype(np.int32) for column in columns)
    score = score + distance if selection == "mean" else np.minimum(score, distance)
    score[chosen[-1]] = -(2**30)  # never chosen again
    chosen.append(int(score.argmax()))
  return every[chosen].astype(np.int32)
