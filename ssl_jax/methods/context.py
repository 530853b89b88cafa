"""Context prediction: predict the position of a second patch relative to the first."""

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
  """Eight-way classification of the relative position of two patches from a 3 x 3 grid. Each patch is encoded
  separately.

  Every patch is encoded once, even if it belongs to several pairs. The two features of a pair are joined
  late: a linear layer on both features, BatchNorm, ReLU, dropout, and the classifier. Every patch is
  standardised to channel means of 0 and a root mean square of 1, and so is an image in evaluation; use an
  encoder with normalize='centred'. Do not flip images horizontally, because the labels would then be wrong.

  Args:
    encoder: the image network.
    data: not used; all methods have the same signature.
    tile, gap, jitter: in pixels, see tile_grid.Grid. The ResNet-50 recipe uses 64, 21, 21 in images of 255
      pixels; Doersch et al. use 96, 48, 14 (7 in either direction) and need 398 pixels.
    pairs: "centre": the centre with each of its neighbours, 8 pairs per image; "all": all pairs of
      neighbours in both orders, 40 pairs.
    colour: the defence against chromatic aberration. "drop": each patch keeps one channel; "project": the
      green-magenta component is removed; "grey": an image is converted to grey with probability `grey`;
      "none": no defence.
    coarse: probability that a patch is downsampled and upsampled again.
    width: of the layer that joins the two features.
    norm_momentum: of the BatchNorm of that layer (0.997 in the ResNet-50 recipe, which trains for 10^5
      steps).
  Raises: ValueError for sizes that do not form a grid; when traced, if the grid does not fit the image.
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
  """i32, 0 to 7: the position of grid cell `second` relative to its neighbour `first`, in reading order
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
  centres, others = np.nonzero(far == 1)
  return centres, others


PAIRS = {"centre": (np.full(8, CENTRE), np.delete(np.arange(9), CENTRE)), "all": _neighbours()}
