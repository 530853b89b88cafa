"""Turns images in the forms in which programs hold them into those of records: files and 8-bit pixels."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ssl_jax.data import decode


def as_image(image: Any, where: str) -> bytes | np.ndarray:
  """Turns an image of any form into a file's content or pixels uint8[H, W, 3]. Raises as `as_pixels`."""
  if isinstance(image, bytes):
    return image
  if isinstance(image, (str, pathlib.Path)):
    return pathlib.Path(image).expanduser().read_bytes()
  if isinstance(image, Mapping) and ("bytes" in image or "path" in image):  # Hugging Face, not decoded
    return as_image(image.get("bytes") or image.get("path"), where)
  return as_pixels(image, where)


def as_pixels(image: Any, where: str) -> np.ndarray:
  """Turns a Pillow image or an array into pixels uint8[H, W, 3].

  Args:
    image: an array is uint8 or of integers from 0 to 255, or of floats from 0 to 1, which are rounded to 8
      bits; [H, W], [H, W, C], or [C, H, W] as of torch, with 1, 3 or 4 channels.
    where: names the image in messages.
  Raises: ValueError for another shape or other values.
  """
  if isinstance(image, Image.Image):
    return decode.from_pillow(image)
  array = np.asarray(image)
  if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
    array = np.moveaxis(array, 0, -1)
  if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3, 4)) or not array.size:
    raise ValueError(
      f"{where} has an image of type {type(image).__name__} and shape {array.shape}; use [H, W, 3], [H, W] "
      "or [3, H, W], a Pillow image, the content of a file or its path"
    )
  array = eight_bits(array, where)
  array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
  if array.ndim == 3 and array.shape[-1] == 3:
    return array
  return decode.from_pillow(Image.fromarray(array))


def eight_bits(array: np.ndarray, where: str) -> np.ndarray:
  """Rounds floats from 0 to 1 to uint8; integers from 0 to 255 are kept. Raises ValueError for others."""
  if array.dtype == np.uint8:
    return array
  low, high = float(array.min()), float(array.max())
  top = 1.0 if array.dtype.kind == "f" else 255.0
  if array.dtype.kind not in "fiu" or not 0 <= low <= high <= top:  # nan fails too
    raise ValueError(
      f"{where} has pixels of type {array.dtype} from {low:.4g} to {high:.4g}; use uint8 or floats from 0 to "
      "1, and no normalisation, which is config.encoder.normalize"
    )
  return (
    np.round(array * np.float32(255)).astype(np.uint8) if array.dtype.kind == "f" else array.astype(np.uint8)
  )
