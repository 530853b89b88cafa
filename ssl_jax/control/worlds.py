"""How a scene looks: as in training, with other colours, before a video, under another camera and light."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_jax.control.camera import Camera

WORLDS = ("train", "colours_easy", "colours_hard", "video", "camera")
# how far a colour moves from that of training to one that is drawn from all colours
SPREADS = {"colours_easy": 0.3, "colours_hard": 1.0}
FORTH_AND_BACK = 250  # frames of a video, after which it runs backwards


class Looks:
  """Changes what a camera shows, for one episode at a time."""

  def __init__(self, camera: Camera, clips: Sequence[str] = ()):
    """
    Args:
      clips: paths of the clips for the world "video".
    """
    self._camera, self._clips, self._size = camera, clips, camera.model.vis.global_.offwidth
    model = camera.model
    self._first = {name: getattr(model, name).copy() for name in _CHANGED}
    self._recoloured = False
    self._video: np.ndarray | None = None

  def change(self, world: str, seed: int) -> None:
    """Draws the looks of an episode; the same world and seed give the same looks.

    Raises: ValueError for an unknown world, or "video" without clips.
    """
    check_world(world, self._clips)
    model, rng = self._camera.model, np.random.default_rng([seed, zlib.crc32(world.encode())])
    for name, value in self._first.items():
      getattr(model, name)[:] = value
    self._video = None
    if world == "camera":
      move_camera(model, rng)
    if world == "video":
      self._video = read_video(self._clips[int(rng.integers(len(self._clips)))], self._size, rng)
    if world in SPREADS:
      recolour(model, rng, SPREADS[world])
    if world in SPREADS or self._recoloured:
      self._camera.upload_textures()
    self._recoloured = world in SPREADS

  def show(self, data: Any, moment: int) -> np.ndarray:
    """uint8[size, size, 3]: the picture at a moment of the episode, at the positions of MjData."""
    self._camera.look(data)
    picture = self._camera.picture()
    if self._video is None:
      return picture
    number = moment % max(2 * len(self._video) - 2, 1)
    number = min(number, 2 * len(self._video) - 2 - number) if number >= len(self._video) else number
    return np.where(self._camera.background()[..., None], self._video[number], picture)


_CHANGED = ("mat_rgba", "tex_data", "cam_pos", "cam_fovy", "light_pos", "light_diffuse")


def check_world(world: str, clips: Sequence[str] | str) -> None:
  """Raises ValueError for an unknown world, or for "video" without clips."""
  if world not in WORLDS:
    raise ValueError(f"no world is called {world!r}; known: {', '.join(WORLDS)}")
  if world == "video" and not clips:
    raise ValueError("the world 'video' needs a folder of clips, and none is given; set the option `videos`")


def recolour(model: Any, rng: np.random.Generator, spread: float) -> None:
  """Changes the colours of an MjModel's materials and textures.

  A texture of two colours, such as a chessboard, gets two others; of any other one the brightest and the
  darkest pixels do, and those between them change in proportion.

  Args:
    spread: 1: colours are drawn uniformly; below, they lie this far on the way from the present ones.
  """
  drawn = lambda old: (1 - spread) * old + spread * rng.uniform(0, 1, old.shape)
  plain = model.mat_texid.reshape(model.nmat, -1).max(1) < 0  # others would tint their texture
  model.mat_rgba[plain, :3] = drawn(model.mat_rgba[plain, :3])
  for number in range(model.ntex):
    channels, start = int(model.tex_nchannel[number]), int(model.tex_adr[number])
    count = int(model.tex_height[number] * model.tex_width[number]) * channels
    pixels = model.tex_data[start : start + count].reshape(-1, channels)
    grey = pixels[:, :3].astype(np.float32).mean(1)
    dark, bright = grey.min(), grey.max()
    ends = [np.asarray(pixels[place, :3] / 255) for place in (grey.argmin(), grey.argmax())]
    low, high = (drawn(end).astype(np.float32) for end in ends)
    share = ((grey - dark) / max(float(bright - dark), 1.0))[:, None]
    pixels[:, :3] = np.round(255 * (low + share * (high - low))).astype(np.uint8)


def move_camera(model: Any, rng: np.random.Generator) -> None:
  """Moves the cameras of an MjModel by up to 5% of their distance, changes their angle of view by up to 10%,
  and moves and dims or brightens the lights.
  """
  distance = np.linalg.norm(model.cam_pos, axis=1, keepdims=True)
  model.cam_pos[:] += 0.05 * distance * rng.uniform(-1, 1, model.cam_pos.shape)
  model.cam_fovy[:] *= rng.uniform(0.9, 1.1, model.cam_fovy.shape)
  model.light_pos[:] += rng.uniform(-1, 1, model.light_pos.shape)
  model.light_diffuse[:] *= rng.uniform(0.4, 1.2, (len(model.light_diffuse), 1))


def find_clips(folder: str) -> tuple[str, ...]:
  """Paths of the clips in a folder, see `video_folder.open_video_folder`; () for "".

  Raises: ValueError if there are none.
  """
  if not folder:
    return ()
  from ssl_jax.data import sources  # here: most environments show no clips

  source = sources.make("video_folder", split="train", data_dir=str(pathlib.Path(folder).expanduser()))
  return tuple(source.name(number) for number in range(len(source)))


def read_video(path: str, size: int, rng: np.random.Generator) -> np.ndarray:
  """uint8[N, size, size, 3]: up to FORTH_AND_BACK frames of a clip in order, from a random one on."""
  from ssl_jax.data.fit import Fit
  from ssl_jax.video.clips import open_clip

  with open_clip(path) as clip:
    count = min(len(clip), FORTH_AND_BACK)
    first = int(rng.integers(len(clip) - count + 1))
    return clip.fitted(np.arange(first, first + count), Fit((size, size), "crop", "bilinear").check())[0]
