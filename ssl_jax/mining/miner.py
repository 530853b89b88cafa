"""What a miner is, what it returns, and how it encodes images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssl_jax.data.elements import Record
from ssl_jax.video.clips import Clip

JPEG_QUALITY = 90


class Mined(NamedTuple):
  """What is found in one clip."""

  records: Sequence[Record]
  rejected: Mapping[str, int] = {}  # reason, such as "too little motion" -> how many candidates


class Row(NamedTuple):
  """A row of the picture sheet."""

  caption: str
  images: Sequence[np.ndarray]  # each uint8[H, W, 3]


class Completion(NamedTuple):
  """What is fitted to the records of the training clips."""

  complete: Callable[[Record], Record]  # a record as it was mined -> as it is written
  arrays: Mapping[str, np.ndarray]  # what was fitted, for the file fitted.npz
  statistics: Mapping[str, Any] = {}  # for the file statistics.json


class Miner(NamedTuple):
  """Finds the examples of a pretext task in clips. See the docstring of the package."""

  # (clip, rng) -> what is found; runs in worker processes
  mine: Callable[[Clip, np.random.Generator], Mined]
  # () -> the TFDS features of a completed record, without "clip"
  features: Callable[[], dict[str, Any]]
  # some completed records of the training clips -> the rows of the picture sheet
  rows: Callable[[Sequence[Record]], Sequence[Row]]
  # all records of the training clips, in order -> how records are completed; None: they are complete
  fit: Callable[[Iterable[Record]], Completion] | None = None


def encode_jpeg(pixels: np.ndarray) -> bytes:
  """Encodes pixels uint8[H, W, 3] without subsampling the colours."""
  return _encoded(pixels, "JPEG", quality=JPEG_QUALITY, subsampling=0)


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes pixels uint8[H, W, 3] or a mask uint8[H, W] without loss."""
  return _encoded(pixels, "PNG", compress_level=3)


def _encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()
