"""Reads videos with a class for every pixel of their frames: folders of frames, and DAVIS and KITTI-STEP as
they are published; video_layouts.py has further sets.

A record is a frame with "image", "mask" and "clip_name", the name of its video; where the data set tells
objects apart, also with "segments", see segments.py. The frames of a video follow each other in order, and a
part of a split, such as "train[:50%]", is a part of its videos. A frame without a mask file is one without
labels: its mask is IGNORE everywhere.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data import decode, segments, splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder_layout import plain_splits
from ssl_jax.data.mask_folder import CLASSES, check_present, pair_of_folders
from ssl_jax.data.mask_layouts import CITYSCAPES, images_in, pairs_by_stem, subfolders
from ssl_jax.data.mask_values import FIELD, IGNORE, UNKNOWN, MaskClasses, read_class_file, value_table
from ssl_jax.data.reader import Source
from ssl_jax.data.segments import EncodedSegments

CITYSCAPES_NAMES = tuple(CITYSCAPES.values())


class VideoFrame(NamedTuple):
  """A frame of a video; the paths are relative to the folder of the data set."""

  image: str
  mask: str  # need not exist; "": there is none
  values: np.ndarray | None = None  # "mask_values" of this frame, if they are not those of the data set
  crowd: tuple[int, ...] = ()  # see `EncodedSegments`


Videos = Mapping[str, Sequence[VideoFrame]]  # by the name of the video


class VideoSet(NamedTuple):
  """A data set of videos as it lies in a folder."""

  root: pathlib.Path
  splits: Mapping[str, Callable[[], Videos]]  # for each split, a function that lists its videos
  classes: MaskClasses
  things: tuple[str, ...] = ()  # the classes whose segments are objects
  rates: Mapping[str, float] = {}  # frames a second by split, of the files; {}: unknown
  segments: bool = True  # whether masks tell segments apart
  first_channel: bool = False  # whether a mask's first channel holds its classes, and the others objects


@dataclasses.dataclass(frozen=True, eq=False)
class VideoReader:
  """Reads encoded frames and masks; decoding is left to the pipeline."""

  root: str
  frames: tuple[VideoFrame, ...]
  videos: tuple[str, ...]  # one name for each frame
  values: np.ndarray | None  # "mask_values" of frames that have none of their own
  segments: bool
  first_channel: bool

  def __len__(self) -> int:
    return len(self.frames)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{**self._record(self.frames[i]), "clip_name": self.videos[i]} for i in indices]

  def name(self, index: int) -> str:
    return os.path.join(self.root, self.frames[index].image)

  def _record(self, frame: VideoFrame) -> Record:
    record: dict[str, Any] = {"image": pathlib.Path(self.root, frame.image).read_bytes(), "label": -1}
    if not frame.mask:
      width, height = decode.open_image(record["image"]).size
      record["mask"] = np.full((height, width), IGNORE, np.uint8)
      return {**record, segments.FIELD: EncodedSegments(b"")} if self.segments else record
    try:
      mask = pathlib.Path(self.root, frame.mask).read_bytes()
    except FileNotFoundError as error:  # it was there when the data set was opened
      raise decode.DecodeError(f"its mask {frame.mask} is gone; restore it") from error
    record["mask"] = np.ascontiguousarray(decode.decode(mask)[..., 0]) if self.first_channel else mask
    values = self.values if frame.values is None else frame.values
    record |= {} if values is None else {FIELD: values}
    return {**record, segments.FIELD: EncodedSegments(mask, frame.crowd)} if self.segments else record


def open_videos(find: Callable[[str], VideoSet], data_dir: str, split: str) -> Source:
  """Opens a split of a data set of videos.

  Args:
    find: finds the data set in `data_dir`.
  Raises: ValueError as `find`, or if the split does not exist, has no frame, or not one of its frames or of
    its masks exists.
  """
  found = find(data_dir)
  splits.check_names(split, list(found.splits), f"the folder {found.root}")
  videos = {name: found.splits[name]() for name in splits.names(split)}
  for name, of_split in videos.items():
    pairs = [(frame.image, frame.mask) for frames in of_split.values() for frame in frames]
    labelled = [pair for pair in pairs if pair[1]]
    check_present(found.root, name, labelled or pairs)
  names = {name: list(of_split) for name, of_split in videos.items()}
  parts = splits.choose(split, {name: np.full(len(of_split), -1) for name, of_split in names.items()})
  chosen = [(name, names[name][i]) for name, places in parts for i in places]
  rows = [(frame, video) for name, video in chosen for frame in videos[name][video]]
  frames = without_missing_masks(found.root, [frame for frame, _ in rows])
  absent = sum(not frame.mask for frame in frames)
  clip_names = tuple(video for _, video in rows)
  return Source(
    VideoReader(
      str(found.root), frames, clip_names, found.classes.values, found.segments, found.first_channel
    ),
    len(found.classes.names),
    found.classes.names,
    None,
    fields=("image", "mask", "label", "clip_name", *((segments.FIELD,) if found.segments else ())),
    order="whole videos, " + splits.SHUFFLED,
    records="frames",
    left_out=f"masks of {absent} frames, which have none" if absent else "",
    clip_names=clip_names,
    things=found.things,
  )


def without_missing_masks(root: pathlib.Path, frames: Sequence[VideoFrame]) -> tuple[VideoFrame, ...]:
  """The frames, with "" in the place of a mask that does not exist; each folder of masks is listed once."""
  places = collections.defaultdict(set)
  for folder in {os.path.dirname(frame.mask) for frame in frames if frame.mask}:
    places[folder] = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
  there = lambda mask: mask and os.path.basename(mask) in places[os.path.dirname(mask)]
  return tuple(frame if there(frame.mask) else frame._replace(mask="") for frame in frames)


def find_video_masks(data_dir: str) -> VideoSet:
  """Finds videos as folders of frames: images/VIDEO/FRAME.jpg and masks/VIDEO/FRAME.png.

  The pair of folders, or one in each of the split folders such as train and test, classes.txt and the masks
  are as of `mask_folder.open_mask_folder`, which the docstring there describes.

  Raises: ValueError as `open_mask_folder`.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(f"data_dir={data_dir!r} is not a folder; give the one that holds the images and masks")
  pairs = {name: pair_of_folders(folder) for name, folder in plain_splits(root).items()}
  pairs = {name: pair for name, pair in pairs.items() if pair}
  whole = pair_of_folders(root)
  if whole:
    pairs = {"train": whole}
  if not pairs:
    raise ValueError(f"{root} holds no folders images/VIDEO and masks/VIDEO, alone or in split folders")
  class_file = next((root / name for name in CLASSES if (root / name).is_file()), None)
  classes = read_class_file(class_file) if class_file else UNKNOWN
  find = {name: functools.partial(_beside, root, *pair) for name, pair in pairs.items()}
  return VideoSet(root, find, classes, segments=False)


def find_davis(data_dir: str) -> VideoSet:
  """Finds DAVIS 2016 or 2017 at 480p as two classes: background and object; an object is a segment.

  `data_dir`, or DAVIS in it, holds JPEGImages/480p/VIDEO, Annotations/480p/VIDEO and lists of the names of
  videos ImageSets/YEAR/SPLIT.txt, or of frames ImageSets/480p/SPLIT.txt; if there are several, the newest
  counts. The numbers of the objects are one class. The files have 24 frames a second.

  Raises: ValueError if there is no list, or as `open_mask_folder`.
  """
  root = next(
    (
      path
      for path in (pathlib.Path(data_dir), pathlib.Path(data_dir, "DAVIS"))
      if (path / "JPEGImages" / "480p").is_dir()
    ),
    None,
  )
  if root is None:
    raise ValueError(f"data_dir={data_dir!r} holds no folder JPEGImages/480p; give the folder of DAVIS")
  lists: dict[str, pathlib.Path] = {}
  for path in sorted(root.glob("ImageSets/*/*.txt")):  # 2016, 2017, 480p
    if path.parent.name.isdigit() or path.stem not in lists:
      lists[path.stem] = path
  if not lists:
    raise ValueError(f"{root}/ImageSets holds no list of a split, such as 2016/val.txt")
  find = {name: functools.partial(_davis_videos, root, path) for name, path in lists.items()}
  values = (np.arange(256) > 0).astype(np.int16)  # DAVIS 2016 marks its objects by 255
  return VideoSet(
    root, find, MaskClasses(values, ("background", "object")), ("object",), dict.fromkeys(find, 24.0)
  )


def find_kitti_step(data_dir: str) -> VideoSet:
  """Finds KITTI-STEP: the 19 classes of Cityscapes; persons and cars are objects.

  `data_dir` holds training/image_02/VIDEO/FRAME.png of KITTI's tracking benchmark and
  panoptic_maps/SPLIT/VIDEO/FRAME.png with SPLIT train or val, whose red channel is the class, 255 for none,
  and whose other channels are the number of the object; persons and cars with number 0 are crowds. The test
  videos of Wang et al. 2023 are those of train.

  Raises: ValueError as `open_mask_folder`.
  """
  root = pathlib.Path(data_dir)
  images, maps = root / "training" / "image_02", root / "panoptic_maps"
  for folder in (images, maps):
    if not folder.is_dir():
      raise ValueError(f"data_dir={data_dir!r} holds no folder {folder.relative_to(root)}")
  find = {
    name: functools.partial(_kitti_videos, root, images, folder) for name, folder in subfolders(maps).items()
  }
  values = value_table({**{k: k for k in range(len(CITYSCAPES))}, IGNORE: IGNORE})
  things, classes = ("person", "car"), MaskClasses(values, CITYSCAPES_NAMES)
  return VideoSet(root, find, classes, things, dict.fromkeys(find, 10.0), first_channel=True)


def _beside(root: pathlib.Path, images: pathlib.Path, masks: pathlib.Path) -> Videos:
  return {
    name: _frames(pairs_by_stem(root, images_in(folder), [masks / name]))
    for name, folder in subfolders(images).items()
  }


def _frames(pairs: Sequence[tuple[str, str]]) -> list[VideoFrame]:
  return [VideoFrame(*pair) for pair in pairs]


def _davis_videos(root: pathlib.Path, path: pathlib.Path) -> Videos:
  lines = [line.split()[0] for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
  names = dict.fromkeys(pathlib.PurePosixPath(line).parent.name or line for line in lines)
  images, masks = root / "JPEGImages" / "480p", root / "Annotations" / "480p"
  missing = [name for name in names if not (images / name).is_dir()]
  if missing:
    raise ValueError(f"{path} names the video {missing[0]!r}, but there is no folder {images / missing[0]}")
  return {name: _frames(pairs_by_stem(root, images_in(images / name), [masks / name])) for name in names}


def _kitti_videos(root: pathlib.Path, images: pathlib.Path, maps: pathlib.Path) -> Videos:
  crowd = tuple(CITYSCAPES_NAMES.index(name) for name in ("person", "car"))
  found = {}
  for name, folder in subfolders(maps).items():
    shown = images_in(images / name) if (images / name).is_dir() else []
    files = {f"{path.stem}.png" for path in (*shown, *images_in(folder))}
    image, mask = (os.path.relpath(place, root) for place in (images / name, folder))
    found[name] = [
      VideoFrame(os.path.join(image, file), os.path.join(mask, file), crowd=crowd) for file in sorted(files)
    ]
  return found
