"""Clips whose classes a table tells, as streams of images for a classifier of stills."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import classes
from ssl_jax.data.transforms import ImageTransform
from ssl_jax.tasks.video_streams import Video, order_of


class Table(NamedTuple):
  """Which classes stills and videos share."""

  names: tuple[str, ...]  # of the videos' classes
  own: tuple[np.ndarray, ...]  # for each of them, the numbers of the network's classes
  clips: dict[str, int]  # path of a clip -> number of its class
  absent: dict[str, list[list[int]]]  # path of a clip -> ranges of frames that do not show the object


def read_table(clips: str, table: str, names: Sequence[str]) -> Table:
  """Reads the table of classes; see `stills_to_video.make`.

  Args:
    clips: the folder of the clips.
    table: the file.
    names: of the network's classes.

  Raises: ValueError for a file that is no such table, a class that the network does not know, or a clip that
    does not exist or is of no class of the table.
  """
  needed = (("clips", clips, "the folder of the clips"), ("table", table, "a JSON file of their classes"))
  for name, given, what in needed:
    if not given:
      raise ValueError(f"config.tasks.stills_to_video.{name} is empty; give {what}")
  where = f"config.tasks.stills_to_video.table {table}"
  try:
    found = json.loads(pathlib.Path(table).expanduser().read_text())
    by_class, of_clips = dict(found["classes"]), dict(found["clips"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{where} cannot be read: {error}; it needs 'classes' and 'clips'") from error
  own = tuple(
    classes.numbers_of(tuple(of_class), tuple(names), what=f"{where}, class {name!r},", owner="the network")
    for name, of_class in by_class.items()
  )
  numbers = {name: number for number, name in enumerate(by_class)}
  for path, name in of_clips.items():
    if name not in numbers:
      raise ValueError(f"{where}: the clip {path!r} is of class {name!r}, which is not in 'classes'")
    if not os.path.exists(os.path.join(os.path.expanduser(clips), path)):
      raise ValueError(f"{where}: there is no clip {path!r} in {clips}")
  return Table(
    tuple(by_class), own, {path: numbers[name] for path, name in of_clips.items()}, found.get("absent", {})
  )


class ClipFrames:
  """The frames of the clips of a table as one list."""

  def __init__(self, clips: str, table: Table, pixels: ImageTransform, every: int):
    """
    Args:
      clips: the folder of the clips.
      pixels: makes an image of a frame.
      every: every how many frames one is used.
    """
    from ssl_jax.video.clips import open_clip  # here: a machine without PyAV has the other tasks

    self._pixels, self._open = pixels, open_clip
    self._root, self._table = os.path.expanduser(clips), table
    self.paths = sorted(table.clips)
    places: list[tuple[int, int]] = []
    for number, path in enumerate(self.paths):
      with self._open(os.path.join(self._root, path)) as clip:
        places += [(number, frame) for frame in range(0, len(clip), every)]
    self.places = np.array(places)  # of the list: clip and frame

  def videos(self, *, shuffled: bool, seed: int) -> list[Video]:
    """A stream for each clip."""
    found = []
    for number, path in enumerate(self.paths):
      mine = np.flatnonzero(self.places[:, 0] == number)
      found.append(Video(path, number, order_of(mine, number, shuffled=shuffled, seed=seed)))
    return found

  def read(self, positions: Sequence[int]) -> dict[str, np.ndarray]:
    """The images uint8[N, size, size, 3] at these positions of the list, and their sizes."""
    images: list[Any] = [None] * len(positions)
    wanted = self.places[list(positions)]
    for number in np.unique(wanted[:, 0]):
      mine = np.flatnonzero(wanted[:, 0] == number)
      with self._open(os.path.join(self._root, self.paths[number])) as clip:
        for place, frame in zip(mine, clip.frames(wanted[mine, 1])):
          images[place] = self._pixels(None, frame)
    stacked = np.stack(images)
    return {"image": stacked, "image_size": np.full((len(stacked), 2), stacked.shape[1], np.int32)}

  def shown(self, position: int) -> bool:
    """Whether the frame shows the object of its clip."""
    number, frame = self.places[position]
    ranges = self._table.absent.get(self.paths[number], ())
    return not any(first <= frame < end for first, end in ranges)


def choose(logits: np.ndarray, table: Table) -> np.ndarray:
  """i64[...]: the class of the videos with the largest score, of logits f32[..., C] of the network."""
  scores = np.stack([logits[..., own].max(-1) for own in table.own], -1)
  return scores.argmax(-1)
