"""The frames of test videos as streams: read in order, with the windows from which a network learns."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_jax.tasks.task import TaskData
from ssl_jax.ttt import window
from ssl_jax.ttt.batched import Samples

MOST_BYTES = 2**31  # of decoded frames that are kept in memory


# (positions in the test split) -> the elements of their frames, with "image" and "image_size"
Read = Callable[[Iterable[int]], list[dict[str, np.ndarray]]]


class Video(NamedTuple):
  """A test video as a stream."""

  name: str
  number: int  # of the video in the test split
  frames: np.ndarray  # i64[T]: positions in the test split, in the order of the stream


class Learning(NamedTuple):
  """What a network learns from at each frame."""

  size: int  # latest frames of the window; 0: all so far
  steps: int
  copies: int  # rows of a step
  seed: int
  everything: bool = False  # the window is the whole video, future frames too
  longest: int = 0  # frames of the longest of all videos, if the window is the whole video

  def width(self) -> int:
    """The number of distinct frames in every sample, so that all have one shape."""
    most, window = self.steps * self.copies, self.longest if self.everything else self.size
    return min(most, window) if window else most


def find_videos(data: TaskData, *, shuffled: bool, seed: int) -> list[Video]:
  """The videos of the test split, in its order.

  Args:
    shuffled: whether the frames of each video come in a random order, which destroys their nearness.
  Raises: ValueError for test records without masks or names of videos.
  """
  records = data.records
  if records is None or not {"mask", "clip_name"} <= set(records.fields):
    raise ValueError(
      "task 'ttt_video' needs 'mask' and 'clip_name' in every test record, but they have only "
      f"{', '.join(records.fields) if records else 'image, label'}; use a data set of videos with masks, "
      "such as config.data.name='video_masks'"
    )
  names: dict[str, list[int]] = {}
  told = records.clip_names or (records.record(position)["clip_name"] for position in range(data.test_size))
  for position, name in enumerate(told):
    names.setdefault(name, []).append(position)
  found = []
  for number, (name, positions) in enumerate(names.items()):
    order = order_of(np.array(positions, np.int64), number, shuffled=shuffled, seed=seed)
    found.append(Video(name, number, order))
  return found


def order_of(positions: np.ndarray, number: int, *, shuffled: bool, seed: int) -> np.ndarray:
  """The positions i64[T] of the frames of a video in the order of its stream."""
  return np.random.default_rng([seed, number]).permutation(positions) if shuffled else positions


class FrameReader:
  """Decodes frames, and keeps the latest in memory."""

  def __init__(self, read: Callable[[Sequence[int]], dict[str, np.ndarray]]):
    """
    Args:
      read: (positions) -> the elements of these frames, [N, ...].
    """
    self._read = read
    self._kept: collections.OrderedDict[int, dict[str, np.ndarray]] = collections.OrderedDict()
    self._bytes = 0

  def __call__(self, positions: Iterable[int]) -> list[dict[str, np.ndarray]]:
    """The elements of the frames at these positions of the test split."""
    wanted = [int(position) for position in positions]
    missing = sorted(set(wanted) - self._kept.keys())
    if missing:
      rows = self._read(missing)
      for row, position in enumerate(missing):
        self._kept[position] = {name: leaf[row] for name, leaf in rows.items()}
        self._bytes += sum(leaf.nbytes for leaf in self._kept[position].values())
    for position in wanted:
      self._kept.move_to_end(position)
    found = [self._kept[position] for position in wanted]
    while self._bytes > MOST_BYTES and len(self._kept) > 1:
      _, row = self._kept.popitem(last=False)
      self._bytes -= sum(leaf.nbytes for leaf in row.values())
    return found


def samples_at(
  read: Read, videos: Sequence[Video], moment: int, learning: Learning
) -> tuple[Samples, np.ndarray]:
  """One sample of each stream, see `window`, and the positions i32[S] of their frames.

  A stream that is over repeats its last frame.
  """
  samples, positions = [], []
  for video in videos:
    number = min(moment, len(video.frames) - 1)
    seen = range(len(video.frames))
    seen = seen if learning.everything else window.window_of(number, learning.size)
    rng = np.random.default_rng([learning.seed, video.number, number])
    drawn = window.draw_frames(rng, seen, steps=learning.steps, copies=learning.copies)
    rows = read([*video.frames[drawn.frames], video.frames[number]])
    shown = [*rows[:-1], *[rows[-1]] * (learning.width() - len(drawn.frames))]
    samples.append(
      {
        "image": rows[-1]["image"],
        "image_size": rows[-1]["image_size"],
        "frames": np.stack([row["image"] for row in shown]) if shown else rows[-1]["image"][None],
        "frames_size": np.stack([row["image_size"] for row in shown])
        if shown
        else rows[-1]["image_size"][None],
        "rows": drawn.rows,
      }
    )
    positions.append(video.frames[number])
  stacked = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
  return stacked, np.array(positions, np.int32)
