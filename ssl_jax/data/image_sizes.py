"""Measures the images of a source, so that arrays of one shape can be chosen that hold all of them."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ssl_jax.data.decode import DecodeError, open_image
from ssl_jax.data.full_mask import resized_to
from ssl_jax.data.reader import Source, cores

_CHUNK = 64  # records read in one call


def image_sizes(source: Source, threads: int = 0) -> np.ndarray:
  """Returns the (height, width) of every upright image in pixels, i32[N, 2]; only headers are decoded.

  Records that cannot be read are (0, 0); an image whose header is intact has its size, even if the rest of
  the record turns out to be damaged.

  Args:
    threads: number of threads that read; 0: one for each core.
  """
  found = np.zeros((len(source), 2), np.int32)
  with ThreadPoolExecutor(threads or cores()) as pool:
    list(pool.map(functools.partial(_measure, source, found), range(0, len(source), _CHUNK)))
  return found


def resized(sizes: np.ndarray, short_side: int) -> np.ndarray:
  """Returns the sizes that `full_mask.ImageAndFullMask` gives images.

  Args:
    sizes: (height, width) i32[N, 2]; (0, 0) stays so.
    short_side: as there: pixels to which the shorter side is resized; 0: images keep their size.
  Returns: (height, width) i32[N, 2].
  """
  return np.array(
    [resized_to(short_side, width, height)[::-1] if height else (0, 0) for height, width in sizes.tolist()],
    np.int32,
  ).reshape(-1, 2)


def _measure(source: Source, found: np.ndarray, start: int) -> None:
  """Measures a chunk of images from `start` on."""
  indices = range(start, min(start + _CHUNK, len(source)))
  for i, record in zip(indices, source.read_each(indices), strict=True):
    try:
      if not isinstance(record, DecodeError):
        found[i] = open_image(record["image"]).size[::-1]
    except DecodeError:
      continue
