"""Context prediction: where does the second patch lie, seen from the first?"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import PretextExamples
from ssl_jax.core import DataSpec, Method
from ssl_jax.methods.pretext import pretext_template, tile_grid
from ssl_jax.models import Network, heads, network

ABILITIES = pretext_template.ABILITIES
CENTRE = 4


def make(
  encoder: Network,
  data: DataSpec,
  *,
  tile: int = 64,
  gap: int = 21,
  jitter: int = 21,
  pairs: Literal["centre", "all"] = "centre",
  colour: Literal["drop", "project", "grey", "none"] = "drop",
  grey: float = 0.66,
  coarse: float = 0.33,
  width: int = 4096,
  dropout: float = 0.5,
  norm_momentum: float = 0.9,
) -> Method:
  """Eight-way classification of the relative place of two patches out of a 3 x 3 grid; both are encoded
  alone.

  Patches are encoded once, however many pairs they make, and joined late: a linear layer on both features,
    BatchNorm, ReLU,
  dropout, the answer. Every patch has channel means 0 and power 1, and so has an image in evaluation; give
  the encoder normalize='centred'. Images must not be mirrored: that would make answers wrong.

  Args:
    encoder: the image network. data: unused; every method is built alike.
    tile, gap, jitter: pixels; see tile_grid.Grid. 64, 21, 21 in images of 255 is the ResNet-50 recipe;
      Doersch et al. have 96, 48, 14 (seven either way) and need 398.
    pairs: "centre": the centre and each neighbour, 8 pairs an image; "all": all neighbours, both ways, 40
      pairs.
    colour: against chromatic aberration. "drop": each patch keeps one channel; "project": none has
      green-magenta; "grey": an image is grey with probability `grey`; "none".
    coarse: probability that a patch is reduced and enlarged again.
    width: of the joining layer. norm_momentum: of its BatchNorm (0.997 in the ResNet-50 recipe, which trains
      for 10^5 steps).
  Raises: ValueError for sizes that make no grid; when traced, if the grid does not fit the image.
  Source: Doersch, Gupta, Efros 2015, and released code.
  """
  grid = tile_grid.Grid(tile, gap, jitter).check()
  first, second = PAIRS[pairs]
  answers = relative_place(first, second)

  def make_task(key: jax.Array, images: jax.Array) -> PretextExamples:
    place_key, colour_key, coarse_key = jax.random.split(key, 3)
    if colour == "grey":
      images = tile_grid.random_grey(colour_key, images, grey)
    pieces = tile_grid.cut_tiles(
      images, tile_grid.sample_corners(place_key, len(images), grid, images.shape[1]), tile
    )
    pieces = tile_grid.random_coarse(coarse_key, pieces, coarse) if coarse else pieces
    if colour == "drop":
      pieces = tile_grid.drop_colour(colour_key, pieces)
    elif colour == "project":
      pieces = tile_grid.project(pieces)
    return PretextExamples(
      tile_grid.equalize(pieces),
      jnp.tile(jnp.asarray(answers)[None], (len(images), 1)),
      tile_grid.PLACES,
      "place of the second patch seen from the first",
    )

  head = network(
    heads.Pairs(len(tile_grid.PLACES) - 1, width, tuple(first), tuple(second), dropout, norm_momentum)
  )
  return pretext_template.make_pretext_method(
    encoder, head, make_task, pretext_template.score_classes, prepare=tile_grid.equalize
  )


def relative_place(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """i32: 0 to 7, the place of cell `second` of the grid seen from its neighbour `first`: reading order
  without the centre.
  """
  down, across = (
    np.asarray(second) // 3 - np.asarray(first) // 3,
    np.asarray(second) % 3 - np.asarray(first) % 3,
  )
  place = 3 * (down + 1) + across + 1
  return (place - (place > CENTRE)).astype(np.int32)


def _neighbours() -> tuple[np.ndarray, np.ndarray]:
  cells = np.arange(9)
  far = np.maximum(abs(cells[:, None] // 3 - cells // 3), abs(cells[:, None] % 3 - cells % 3))
  return np.nonzero(far == 1)


PAIRS = {"centre": (np.full(8, CENTRE), np.delete(np.arange(9), CENTRE)), "all": _neighbours()}
