"""Frames of a textured square that moves before a textured background, which a panning camera shifts."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT, SIDE, PAN = 240, 160, 40, 2  # pixels; PAN: of the background in a frame
_MOST = 200  # pixels by which the background is ever shifted
_START, _TOP = 90, 60  # of the sprite in the first frame


def background(width: int, height: int, seed: int = 0, values: tuple[int, int] = (20, 140)) -> np.ndarray:
  """A smooth random texture uint8[H, W, 3]."""
  small = np.random.default_rng(seed).integers(*values, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
  return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def frame(number: int, speed: int, seed: int = 0) -> np.ndarray:
  """A frame uint8[HEIGHT, WIDTH, 3]; the sprite moves by `speed` pixels a frame across."""
  pixels = background(WIDTH + _MOST, HEIGHT, seed)[:, PAN * number : PAN * number + WIDTH].copy()
  pixels[truth(number, speed)] = background(SIDE, SIDE, seed + 1, (130, 250)).reshape(-1, 3)
  return pixels


def truth(number: int, speed: int) -> np.ndarray:
  """Where the sprite is, bool[HEIGHT, WIDTH]."""
  mask = np.zeros((HEIGHT, WIDTH), bool)
  left = _START + speed * number
  mask[_TOP : _TOP + SIDE, left : left + SIDE] = True
  return mask


def write_folder(path: pathlib.Path, count: int, speed: int, seed: int = 0) -> pathlib.Path:
  """Writes a clip, a folder of numbered images."""
  path.mkdir(parents=True)
  for number in range(count):
    Image.fromarray(frame(number, speed, seed)).save(path / f"{number:03}.png")
  return path
