"""Describes data sets of videos: how many, how long, at which rate, with which classes."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data import splits, video_layouts
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.folder_layout import find_splits
from ssl_jax.data.reader import Source
from ssl_jax.data.video_folder import CLIPS, open_video_folder
from ssl_jax.data.video_masks import VideoReader, VideoSet, open_videos
from ssl_jax.video.clips import open_clip
from ssl_jax.video.frame_folder import RATE_FILE, TIMES_FILE

# Frames a second that papers state, which may be those of the films rather than of the files.
PUBLISHED = {
  "cityscapes_vps": 17.0,
  "davis": 30.0,
  "youtube_vos": 30.0,
  "kitti_step": 10.0,
  "coco_videos": 10.0,
}
CLIP_FOLDER = "video_folder"
NAMES = (*(name for name in video_layouts.LAYOUTS if name != "video_masks"), "video_masks", CLIP_FOLDER)
_COLUMNS = ("set", "split", "mean length", "frames", "labelled", "videos", "rate", "classes")


class Described(NamedTuple):
  """A split of a data set of videos."""

  name: str
  split: str
  lengths: np.ndarray  # i64[V]: the frames of each video
  labelled: int  # frames that have labels
  rate: float  # frames a second of the files; 0: unknown
  classes: str
  remark: str  # where the rate comes from, and what cannot be read

  @property
  def seconds(self) -> float:
    """The mean length of a video; nan where the rate is unknown."""
    return float(self.lengths.mean()) / self.rate if self.rate else float("nan")

  def cells(self) -> tuple[str, ...]:
    """The values of _COLUMNS as text."""
    known = bool(self.rate)
    return (
      self.name,
      self.split,
      f"{self.seconds:.1f} s" if known else "-",
      f"{self.lengths.sum():,}",
      f"{self.labelled:,}",
      f"{len(self.lengths):,}",
      f"{self.rate:.4g}/s" if known else "-",
      self.classes,
    )


def describe(words: Sequence[str], data_dir: str, name: str = "", split: str = "") -> list[Described]:
  """Prints a table of what the only word in `words`, "videos", finds in a folder.

  Args:
    name: the data set, one of NAMES; "": the first of them that `data_dir` holds.
    split: the split, or a part of it; "": all that can be read.
  Returns: a row for each split.
  Raises: ValueError for another word, an unknown name, or a folder that holds no such data set.
  """
  if len(words) != 1 or words[0] not in KINDS:
    raise ValueError(f"`ssl-jax describe` takes one word{nearest(' '.join(words), KINDS)}")
  if not os.path.isdir(data_dir):
    raise ValueError(f"--data_dir={data_dir} is not a folder; give the one that holds the data set")
  return KINDS[words[0]](data_dir, name, split)


def describe_videos(data_dir: str, name: str, split: str) -> list[Described]:
  """See `describe`."""
  if name and name not in NAMES:
    raise ValueError(f"--name={name} is no data set of videos{nearest(name, NAMES)}")
  name, known = _recognised(data_dir, [name] if name else list(NAMES))
  rows, refused = [], []
  for one in [split] if split else known:
    try:
      rows.append(_clips(data_dir, one) if name == CLIP_FOLDER else _masked(name, data_dir, one))
    except ValueError as error:
      if split or len(known) == 1:
        raise
      refused.append(f"{one}: {error}")
  if not rows:
    raise ValueError("no split can be read:\n" + "\n".join(refused))
  table = [_COLUMNS, *(row.cells() for row in rows)]
  widths = [max(map(len, column)) for column in zip(*table)]
  for cells in table:
    print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths)).rstrip())
  for remark in dict.fromkeys([*(row.remark for row in rows), *(f"not described: {one}" for one in refused)]):
    print(remark)
  return rows


def _recognised(data_dir: str, names: Sequence[str]) -> tuple[str, list[str]]:
  """(The first of the data sets that lies in the folder, its splits)."""
  reasons = []
  for name in names:
    try:
      if name == CLIP_FOLDER:
        known = list(find_splits(pathlib.Path(data_dir), CLIPS))
        open_video_folder(data_dir, known[0])
      else:
        known = list(video_layouts.LAYOUTS[name](data_dir).splits)
      return name, known
    except ValueError as error:
      reasons.append(f"  {name}: {error}")
  raise ValueError(f"{data_dir} holds no data set of videos that is known:\n" + "\n".join(reasons))


def _masked(name: str, data_dir: str, split: str) -> Described:
  """Describes a set of frames with masks."""
  found = video_layouts.LAYOUTS[name](data_dir)
  source = open_videos(lambda _: found, data_dir, split)
  lengths = np.array(list(collections.Counter(source.clip_names).values()))
  reader = source.reader
  labelled = sum(bool(frame.mask) for frame in reader.frames) if isinstance(reader, VideoReader) else 0
  rates = {found.rates.get(part, 0.0) for part in splits.names(split)}
  rate = rates.pop() if len(rates) == 1 else 0.0
  return Described(name, split, lengths, labelled, rate, _class_count(found), _remark(name, rate))


def _class_count(found: VideoSet) -> str:
  names = found.classes.names
  count = len(names) - ("background" in names)
  return f"{count} + background" if "background" in names else str(count or "-")


def _remark(name: str, rate: float) -> str:
  if not rate:
    return f"{name}: the files do not tell their rate, so that no length is known"
  published = PUBLISHED[name]
  same = abs(published - rate) < 0.5
  return f"{name}: the rate is the one that is published" + (
    "" if same else f" for its files, {rate:.4g} frames a second; the paper's table states {published:g}"
  )


def _clips(data_dir: str, split: str) -> Described:
  """Describes a folder of clips."""
  source = open_video_folder(data_dir, split)
  lengths, seconds, bad, untimed = [], 0.0, 0, 0
  for i in range(len(source)):
    try:
      with open_clip(source.name(i)) as clip:
        lengths.append(len(clip))
        seconds += clip.duration
        untimed += _untimed(source, i)
    except DecodeError:
      bad += 1
  if not lengths:
    raise ValueError(
      f"not one of the {len(source)} clips of {data_dir} can be read, such as {source.name(0)}"
    )
  rate = 0.0 if untimed else sum(lengths) / seconds
  remark = f"{CLIP_FOLDER}: the rate is that of the files"
  if untimed:
    remark = (
      f"{CLIP_FOLDER}: {untimed} folders of frames do not tell their rate, so that no length is known; write "
      f"it into {RATE_FILE} there"
    )
  remark += f"; {bad} clips cannot be read" if bad else ""
  return Described(CLIP_FOLDER, split, np.array(lengths), 0, rate, str(source.num_classes or "-"), remark)


def _untimed(source: Source, index: int) -> bool:
  """Whether a clip is a folder of frames that does not tell its rate."""
  path = source.name(index)
  return os.path.isdir(path) and not {RATE_FILE, TIMES_FILE} & set(os.listdir(path))


KINDS = {"videos": describe_videos}
