"""Synthetic sound textures, noise of a band with a modulation, and clips that show a picture of each kind.

`python -m tests.mining.made_textures DIR COUNT` writes COUNT clips of each kind.
"""

from __future__ import annotations

import pathlib
import sys
from typing import NamedTuple

import numpy as np

from ssl_jax.mining import sound_texture
from tests.made_clips import add_sound, write_sound

RATE = 24_000  # of the sound of a clip


class Texture(NamedTuple):
  """A kind of sound, and the colour and shape that are shown with it."""

  low: float  # Hz
  high: float
  rate: float  # Hz, of the modulation; 0: none
  colour: tuple[int, int, int]
  round: bool


TEXTURES = (
  Texture(100, 400, 0, (200, 60, 50), True),
  Texture(100, 400, 6, (60, 190, 70), False),
  Texture(1000, 3000, 0, (70, 80, 210), True),
  Texture(1000, 3000, 6, (200, 190, 60), False),
  Texture(4000, 7500, 0, (180, 70, 190), True),
  Texture(4000, 7500, 20, (60, 190, 190), False),
)


def made_sound(kind: int, seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
  """Sound of a kind, f32[seconds * rate], with a random gain, phase and slightly random limits."""
  low, high, modulation, _, _ = TEXTURES[kind]
  count = round(seconds * rate)
  spectrum = np.fft.rfft(rng.normal(size=count))
  frequency = np.fft.rfftfreq(count, 1 / rate)
  spectrum[(frequency < low * rng.uniform(0.9, 1.1)) | (frequency > high * rng.uniform(0.9, 1.1))] = 0
  sound = np.fft.irfft(spectrum, count)
  if modulation:
    turns = modulation * rng.uniform(0.95, 1.05) * np.arange(count) / rate + rng.uniform()
    sound *= 1 + 0.95 * np.sin(2 * np.pi * turns)
  sound = sound / np.abs(sound).max() + 0.003 * rng.normal(
    size=count
  )  # without any ground, codecs make theirs
  return (rng.uniform(0.03, 0.3) * sound).astype(np.float32)


def texture_summaries(each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Summaries f32[6 * each, 502] of windows of every kind, and the kinds i64[6 * each]."""
  rng = np.random.default_rng(seed)
  kinds = np.repeat(np.arange(len(TEXTURES)), each)
  sounds = (made_sound(int(kind), 3.75, sound_texture.RATE, rng) for kind in kinds)
  return np.stack([sound_texture.summarize_sound(sound) for sound in sounds]), kinds


def picture(kind: int, rng: np.random.Generator, size: tuple[int, int] = (96, 80)) -> np.ndarray:
  """A disc or a square of the kind's colour, roughly, somewhere on a noisy ground; uint8[H, W, 3]."""
  width, height = size
  image = rng.normal(110, 25, (height, width, 3)) + rng.normal(0, 15, 3)
  radius = rng.uniform(15, 28)
  down, across = (rng.uniform(radius, side - radius) for side in (height, width))
  rows, columns = np.ogrid[:height, :width]
  if TEXTURES[kind].round:
    inside = (rows - down) ** 2 + (columns - across) ** 2 < radius**2
  else:
    inside = (abs(rows - down) < radius) & (abs(columns - across) < radius)
  image[inside] = np.array(TEXTURES[kind].colour) + rng.normal(0, 12, 3)
  return image.clip(0, 255).astype(np.uint8)


def write_texture_clip(path: pathlib.Path, kind: int, seed: int, *, seconds: float = 6.0, rate: int = 5):
  """Writes a clip of a kind with its sound; each frame is another picture."""
  import av

  rng = np.random.default_rng(seed)
  sound = made_sound(kind, seconds, RATE, rng)
  with av.open(str(path), "w") as out:
    video = out.add_stream("mpeg4", rate=rate, options={"qscale": "3"})
    video.width, video.height, video.pix_fmt = 96, 80, "yuv420p"
    heard = add_sound(out, "aac", RATE, sound)
    for _ in range(round(seconds * rate)):
      out.mux(video.encode(av.VideoFrame.from_ndarray(picture(kind, rng), format="rgb24")))
    out.mux(video.encode())
    write_sound(out, heard, RATE, sound)
  return path


if __name__ == "__main__":
  folder, each = pathlib.Path(sys.argv[1]), int(sys.argv[2])
  folder.mkdir(parents=True, exist_ok=True)
  for made in range(len(TEXTURES) * each):
    write_texture_clip(folder / f"{made % len(TEXTURES)}_{made:04}.mp4", made % len(TEXTURES), made)
