"""Resizes images on the host without antialiasing, as TensorFlow does."""

from __future__ import annotations

import numpy as np


def resize_sharply(pixels: np.ndarray, size: int, interpolation: str) -> np.ndarray:
  """Resizes uint8[H, W, 3] to uint8[size, size, 3] without antialiasing.

  It computes what the device computes (`crops.crop_resize` with antialias=False), which is the resize of
  TensorFlow 2: pixel centres lie at i + 1/2, the cubic is Keys' with a = -1/2, and taps outside the image are
  dropped. Pillow always antialiases; its transform, which does not, has another cubic.

  Args:
    interpolation: "bilinear" or "bicubic".
  """
  for axis in np.argsort(pixels.shape[:2])[::-1]:  # the longer side first, which bounds the memory
    index, weight = _taps(pixels.shape[axis], size, interpolation)
    shape = (-1, 1, 1) if axis == 0 else (-1, 1)
    found = np.zeros((), np.float32)
    for t in range(index.shape[1]):
      found = found + pixels.take(index[:, t], axis) * weight[:, t].reshape(shape)
    pixels = found
  return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _taps(length: int, size: int, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns (indices i64[size, T] of the pixels that each output pixel reads, their weights f32[size, T])."""
  kernel, support = KERNELS[interpolation]
  center = (np.arange(size) + 0.5)[:, None] * (length / size)
  index = np.floor(center - support + 0.5) + np.arange(2 * support)
  weight = kernel(np.abs(index + 0.5 - center)) * ((index >= 0) & (index < length))
  weight /= weight.sum(1, keepdims=True)
  return np.clip(index, 0, length - 1).astype(np.int64), weight.astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
  near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0))


KERNELS = {"bilinear": (lambda x: np.maximum(1 - x, 0), 1), "bicubic": (_cubic, 2)}  # and their support
