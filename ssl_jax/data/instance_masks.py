"""Masks of single objects: COCO's polygons and run lengths, kept encoded until their pixels are needed.

COCO counts pixels down the columns, from the left: the run lengths alternate between pixels outside and
inside, beginning with those outside. The codec is our own, so that reading data needs no further package, and
agrees with pycocotools in every pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.decode import DecodeError

_FINER = 5  # COCO draws polygons on a grid this many times finer than the pixels
_BITS, _MORE, _SIGN, _ZERO = 5, 0x20, 0x10, 48  # of the characters of compressed run lengths
_LEAST_POINTS = 3  # of a polygon


class EncodedMask(NamedTuple):
  """The mask of one object: either run lengths or polygons, whose union it is."""

  height: int  # of the image, in pixels
  width: int
  counts: bytes = b""  # COCO's compressed run lengths; empty for polygons
  polygons: tuple[np.ndarray, ...] = ()  # f64[k, 2] each, (x, y) in continuous pixel coordinates


def from_coco(segmentation: Any, height: int, width: int) -> EncodedMask:
  """Encodes the "segmentation" of a COCO annotation.

  Args:
    segmentation: polygons as lists [x, y, x, y, ...], of which those of fewer than three points are left out,
      or {"size": [height, width], "counts": run lengths}, which may be compressed to a string.
    height, width: of the image, for polygons.
  Raises: ValueError for anything else.
  """
  if isinstance(segmentation, Mapping) and {"size", "counts"} <= set(segmentation):
    height, width = map(int, segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
      return EncodedMask(height, width, counts.encode() if isinstance(counts, str) else counts)
    return EncodedMask(height, width, compress(np.asarray(counts, np.int64)))
  if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
    points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in segmentation]
    return EncodedMask(height, width, polygons=tuple(p for p in points if len(p) >= _LEAST_POINTS))
  raise ValueError(f"a segmentation must be polygons or run lengths, not {type(segmentation).__name__}")


def from_pixels(mask: np.ndarray) -> EncodedMask:
  """Encodes pixels bool[H, W]."""
  height, width = mask.shape
  filled = np.flatnonzero(mask.any(0))
  first, past = (filled[0], min(filled[-1] + 2, width)) if len(filled) else (0, 0)
  # Only the columns that the object touches are looked at, and one more, in which its last run ends.
  flat = np.concatenate([[False], np.asarray(mask[:, first:past], bool).T.ravel()])
  places = np.flatnonzero(flat[1:] != flat[:-1]) + first * height
  return EncodedMask(height, width, compress(np.diff(places, prepend=0, append=mask.size)))


def from_numbers(numbers: np.ndarray, chosen: Sequence[int]) -> list[EncodedMask]:
  """Encodes the pixels of each of the `chosen` numbers of an array i64[H, W], in one pass over it.

  A number that does not occur has an empty mask.
  """
  height, width = numbers.shape
  flat = numbers.T.ravel()
  starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
  ends = np.append(starts[1:], flat.size)
  order = np.argsort(flat[starts], kind="stable")
  own = flat[starts][order]
  found = []
  for number in chosen:
    rows = order[np.searchsorted(own, number) : np.searchsorted(own, number, side="right")]
    borders = np.stack([starts[rows], ends[rows]], 1).ravel()
    runs = np.diff(borders, prepend=0, append=flat.size)
    found.append(EncodedMask(height, width, compress(runs if runs[-1] else runs[:-1])))
  return found


def pixels(mask: EncodedMask) -> np.ndarray:
  """Decodes a mask: bool[H, W].

  Raises: DecodeError if the run lengths are not those of an image of its size.
  """
  if mask.counts:
    return _fill(decompress(mask.counts), mask)
  found = np.zeros((mask.height, mask.width), bool)
  for polygon in mask.polygons:
    found |= _fill(_polygon_runs(polygon, mask.height, mask.width), mask)
  return found


def to_coco(mask: EncodedMask) -> dict[str, Any] | list[list[float]]:
  """The "segmentation" of an annotation or result in COCO's form: the opposite of `from_coco`.

  Polygons stay polygons; without any, the mask is empty run lengths.
  """
  if mask.polygons:
    return [polygon.ravel().tolist() for polygon in mask.polygons]
  counts = mask.counts or from_pixels(pixels(mask)).counts
  return {"size": [mask.height, mask.width], "counts": counts.decode()}


def crop(mask: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """The part of a mask in the frame of a box: uint8[size, size], 1 where the object covers half of a cell.

  Args:
    mask: bool[H, W].
    box: f32[4], (x1, y1, x2, y2) in continuous pixel coordinates, inside the image and with an area.
  """
  (rows, top), (columns, left) = (_covered(box[i], box[i + 2], size) for i in (1, 0))
  part = mask[top : top + rows.shape[1], left : left + columns.shape[1]]
  rows, columns = rows[:, : part.shape[0]], columns[:, : part.shape[1]]
  return (rows @ part.astype(np.float32) @ columns.T >= 0.5 - 1e-5).astype(np.uint8)


def _covered(start: float, end: float, size: int) -> tuple[np.ndarray, int]:
  """(The fraction of each of `size` equal cells that each pixel covers, f32[size, n]; the first pixel)."""
  first, past = int(np.floor(start)), int(np.ceil(end))
  edges = np.linspace(start, end, size + 1)[:, None]
  pixel = np.arange(first, past)[None]
  shared = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
  return (np.maximum(shared, 0) * (size / (end - start))).astype(np.float32), first


def compress(runs: np.ndarray) -> bytes:
  """Compresses run lengths i64[k] as COCO does.

  From the fourth on, a run is stored as its difference from the last but one; 5 bits make a character, the
  lowest first, and a sixth bit says whether more follow.
  """
  rest = np.array(runs, np.int64)
  rest[3:] -= runs[1:-2]
  letters, used = [], []
  more = np.ones(len(rest), bool)
  while more.any():
    used.append(more)
    low = rest & (_MORE - 1)
    rest = rest >> _BITS
    more = more & (rest != np.where(low & _SIGN, -1, 0))
    letters.append(low + more * _MORE + _ZERO)
  return np.stack(letters, 1)[np.stack(used, 1)].astype(np.uint8).tobytes() if letters else b""


def decompress(counts: bytes) -> np.ndarray:
  """Run lengths i64[k] from COCO's compressed form; see `compress`.

  Raises: DecodeError if the last number is incomplete.
  """
  letters = np.frombuffer(counts, np.uint8).astype(np.int64) - _ZERO
  ends = np.flatnonzero(letters & _MORE == 0)
  if not len(letters) or ends[-1:].tolist() != [len(letters) - 1]:
    raise DecodeError("the compressed run lengths of a mask end in the middle of a number")
  lengths = np.diff(ends, prepend=-1)
  starts = ends + 1 - lengths
  shifts = _BITS * (np.arange(len(letters)) - np.repeat(starts, lengths))
  values = np.add.reduceat((letters & (_MORE - 1)) << shifts, starts)
  values -= np.where(letters[ends] & _SIGN, 1 << (_BITS * lengths), 0)
  values[1::2] = np.cumsum(values[1::2])
  values[2::2] = np.cumsum(values[2::2])
  return values


def _fill(runs: np.ndarray, mask: EncodedMask) -> np.ndarray:
  """bool[H, W]. Raises DecodeError for run lengths that are negative or of another size."""
  total = mask.height * mask.width
  if (runs < 0).any() or runs.sum() != total:
    raise DecodeError(
      f"the run lengths of a mask add up to {runs.sum()} pixels, or one is negative; its size is "
      f"{mask.height}x{mask.width} (height x width), which is {total} pixels"
    )
  return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(mask.width, mask.height).T


def _polygon_runs(points: np.ndarray, height: int, width: int) -> np.ndarray:
  """Run lengths i64[k], zeros among them, of the pixels inside a polygon f64[n, 2].

  The border is drawn on a grid that is `_FINER` times finer; where it passes the middle of a column of
  pixels, inside and outside change.
  """
  x, y = _border(np.trunc(points * _FINER + 0.5).astype(np.int64))
  before, after, low = x[:-1], x[1:], np.minimum(y[:-1], y[1:])
  crossed = np.minimum(before, after)
  column, offset = np.divmod(crossed, _FINER)
  passes = (before != after) & (offset == _FINER // 2) & (column >= 0) & (column < width)
  row = np.ceil(np.clip((low + 0.5) / _FINER - 0.5, 0, height)).astype(np.int64)
  places = np.sort((column * height + row)[passes])
  return np.diff(places, prepend=0, append=height * width)


def _border(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(x, y) i64[m] each: a closed line through corners i64[n, 2], one point a step of the longer axis."""
  ends = np.roll(corners, -1, 0)
  steps = np.abs(ends - corners).max(1)
  edge = np.repeat(np.arange(len(corners)), steps + 1)
  step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
  shift = ends - corners
  wide = np.abs(shift[:, 0]) >= np.abs(shift[:, 1])
  # Each edge is walked from its smaller end on, so that an edge shared by two objects has the same pixels.
  back = np.where(wide, shift[:, 0], shift[:, 1]) < 0
  origin = np.where(back[:, None], ends, corners)
  slope = np.where(back[:, None], -shift, shift) / np.maximum(steps, 1)[:, None]
  along = np.where(back[edge], steps[edge] - step, step)
  points = origin[edge] + slope[edge] * along[:, None]
  points = np.trunc(points + np.where(np.stack([wide, ~wide], 1)[edge], 0, 0.5)).astype(np.int64)
  return points[:, 0], points[:, 1]
