"""Anchors: boxes of fixed sizes and aspect ratios in every cell of a feature map, which an RPN refines."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Convention = Literal["detectron2", "torchvision"]


class Grid(NamedTuple):
  """The anchors of one feature map: every size with every ratio, in every cell."""

  stride: int  # pixels of the image for each cell
  sizes: tuple[float, ...]  # square roots of the areas, pixels
  ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width

  @property
  def per_cell(self) -> int:
    """A, the number of anchors in a cell."""
    return len(self.sizes) * len(self.ratios)


def scaled(grids: tuple[Grid, ...], factor: float) -> tuple[Grid, ...]:
  """The grids with all sizes multiplied by a factor, for images that are smaller than the published ones."""
  return tuple(grid._replace(sizes=tuple(size * factor for size in grid.sizes)) for grid in grids)


C4 = (Grid(16, (32.0, 64.0, 128.0, 256.0, 512.0)),)
FPN = tuple(Grid(4 * 2**level, (32.0 * 2**level,)) for level in range(5))  # p2 to p6


def cell_anchors(grid: Grid, *, convention: Convention = "detectron2") -> np.ndarray:
  """f32[A, 4]: the anchors of a cell, centred at the origin.

  Args:
    convention: "detectron2": all ratios of the first size come first, corners are exact. "torchvision": all
      sizes of the first ratio come first, corners are rounded to whole pixels (half to even); weights
      trained with torchvision need it. See `grid_anchors` for their distance.
  Raises: ValueError for another convention, and for sizes or ratios that are not positive.
  Source: Ren et al. 2015, section 3.1.1; the conventions are those of the two code bases.
  """
  if convention not in ("detectron2", "torchvision"):
    raise ValueError(f"anchor convention {convention!r} is unknown; use 'detectron2' or 'torchvision'")
  if not grid.per_cell or min(*grid.sizes, *grid.ratios) <= 0:
    raise ValueError(f"anchor sizes {grid.sizes} and ratios {grid.ratios} are not all positive numbers")
  by_size = convention == "detectron2"
  pairs = [(size, ratio) for size in grid.sizes for ratio in grid.ratios]
  if not by_size:
    pairs = [(size, ratio) for ratio in grid.ratios for size in grid.sizes]
  size, ratio = np.array(pairs, np.float64).T
  width, height = size / np.sqrt(ratio), size * np.sqrt(ratio)
  corners = np.stack([-width, -height, width, height], 1) / 2
  return (corners if by_size else np.round(corners)).astype(np.float32)


def grid_anchors(
  height: int, width: int, grid: Grid, *, offset: float = 0.0, convention: Convention = "detectron2"
) -> jax.Array:
  """f32[h * w * A, 4] pixels: the anchors of a feature map of h = ceil(height / stride) rows and w columns.

  Row by row, cell by cell, the anchors of a cell in the order of `cell_anchors`. They may extend beyond the
  image, and none is left out for that. With the convention "torchvision" the distance of the cells is the
  whole number side // n for n cells, which is less than the stride if the stride does not divide the side.

  Args:
    height, width: of the padded image, pixels.
    offset: where the anchors of a cell are centred, as a fraction of the stride from its upper left corner:
      0 in detectron2 and torchvision, 0.5 for the centre of the cell.
  Raises: ValueError as `cell_anchors` does.
  """
  columns, rows = (_centres(side, grid.stride, offset, convention) for side in (width, height))
  y, x = np.meshgrid(rows, columns, indexing="ij")
  centres = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
  anchors = (centres + cell_anchors(grid, convention=convention)[None]).reshape(-1, 4)
  # 4 MB of constants; XLA would fold the arithmetic to the same constants, which takes a minute.
  return jnp.asarray(anchors, jnp.float32)


def _centres(side: int, stride: int, offset: float, convention: Convention) -> np.ndarray:
  """f32[n]: where the anchors of the cells are centred along a side of the image."""
  cells = -(-side // stride)
  distance = side // cells if convention == "torchvision" else stride
  return (np.arange(cells, dtype=np.float32) + offset) * distance


def pyramid_anchors(
  height: int,
  width: int,
  grids: tuple[Grid, ...] = FPN,
  *,
  offset: float = 0.0,
  convention: Convention = "detectron2",
) -> tuple[jax.Array, ...]:
  """`grid_anchors` of each feature map; for C4 give `grids=C4`."""
  return tuple(grid_anchors(height, width, grid, offset=offset, convention=convention) for grid in grids)
