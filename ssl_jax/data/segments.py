"""Segments of panoptic masks: the pixels of one object, or all those of a class without objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_jax.data import decode

FIELD = "segments"  # of a record: `EncodedSegments`


class EncodedSegments(NamedTuple):
  """The segments of an image: the pixels of one segment have one colour, or one palette index."""

  mask: bytes  # an encoded image; b"": there are none
  crowd: tuple[int, ...] = ()  # codes of the segments that hold several objects; see `code_of`


def code_of(red, green, blue):
  """The codes of colours, integers or i32 arrays of one shape, as COCO's panoptic format numbers segments.

  The code of a palette index is the index.
  """
  return red + 256 * green + 65536 * blue


def decode_segments(encoded: EncodedSegments, size: tuple[int, int]) -> np.ndarray:
  """Decodes the segment of each pixel.

  Args:
    size: (height, width) of the image, for masks without segments.
  Returns: i32[H, W]: the code of the segment and 1, negative for a crowd; 0 where there is none. A segment
    may lie on pixels without a class, which the mask of the classes tells.
  Raises: DecodeError if the mask cannot be decoded.
  """
  if not encoded.mask:
    return np.zeros(size, np.int32)
  if decode.open_image(encoded.mask).image.mode in ("P", "L", "1"):
    codes = decode.decode_mask(encoded.mask).astype(np.int32)
  else:
    codes = code_of(*np.moveaxis(decode.decode(encoded.mask).astype(np.int32), -1, 0))
  return np.where(np.isin(codes, encoded.crowd), -1, 1).astype(np.int32) * (codes + 1)
