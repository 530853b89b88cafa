"""Reads videos with a class for every pixel of their frames: folders of frames, and DAVIS and KITTI-STEP as
they are published.

A record is a frame with "image", "mask" and "clip_name", the name of its video. The frames of a video follow
each other in order, and a part of a split, such as "train[:50%]", is a part of its videos.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ssl_jax.data import decode, splits
from ssl_jax.data.elements import Record
from ssl_jax.data.folder_layout import plain_splits
from ssl_jax.data.mask_folder import CLASSES, MaskFolderReader, Pair, check_present, pair_of_folders
from ssl_jax.data.mask_layouts import CITYSCAPES, images_in, pairs_by_stem, subfolders
from ssl_jax.data.mask_values import IGNORE, UNKNOWN, MaskClasses, read_class_file, value_table
from ssl_jax.data.reader import Source

Videos = Mapping[str, Sequence[Pair]]  # pairs of frame and mask by the name of the video


@dataclasses.dataclass(frozen=True, eq=False)
class VideoMaskReader(MaskFolderReader):
  """Reads frames with the name of their video."""

  videos: tuple[str, ...] = ()  # one name for each pair
  first_channel: bool = False  # whether a mask's first channel holds its classes, and the others objects

  def _record(self, image: str, mask: str) -> Record:
    record = super()._record(image, mask)
    if not self.first_channel:
      return record
    return {**record, "mask": np.ascontiguousarray(decode.decode(record["mask"])[..., 0])}

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{**record, "clip_name": self.videos[i]} for i, record in zip(indices, super().read(indices))]


def open_video_masks(data_dir: str, split: str) -> Source:
  """Opens videos as folders of frames: images/VIDEO/FRAME.jpg and masks/VIDEO/FRAME.png.

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
  return _open(root, split, find, classes)


def open_davis(data_dir: str, split: str) -> Source:
  """Opens a split of DAVIS 2016 or 2017 at 480p as two classes: background and object.

  `data_dir`, or DAVIS in it, holds JPEGImages/480p/VIDEO, Annotations/480p/VIDEO and lists of the names of
  videos ImageSets/YEAR/SPLIT.txt, or of frames ImageSets/480p/SPLIT.txt; if there are several, the newest
  counts. The numbers of the objects are one class.

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
  return _open(root, split, find, MaskClasses(values, ("background", "object")))


def open_kitti_step(data_dir: str, split: str) -> Source:
  """Opens a split of KITTI-STEP: the 19 classes of Cityscapes, of which the objects' numbers are left out.

  `data_dir` holds training/image_02/VIDEO/FRAME.png of KITTI's tracking benchmark and
  panoptic_maps/SPLIT/VIDEO/FRAME.png with SPLIT train or val, whose red channel is the class, 255 for none.

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
  return _open(root, split, find, MaskClasses(values, tuple(CITYSCAPES.values())), first_channel=True)


def _open(
  root: pathlib.Path,
  split: str,
  find: Mapping[str, Callable[[], Videos]],
  classes: MaskClasses,
  *,
  first_channel: bool = False,
) -> Source:
  """Makes the source of the videos of a split."""
  splits.check_names(split, list(find), f"the folder {root}")
  videos = {name: find[name]() for name in splits.names(split)}
  for name, of_split in videos.items():
    check_present(root, name, [pair for pairs in of_split.values() for pair in pairs])
  names = {name: list(of_split) for name, of_split in videos.items()}
  parts = splits.choose(split, {name: np.full(len(found), -1) for name, found in names.items()})
  chosen = [(name, names[name][i]) for name, places in parts for i in places]
  rows = [(pair, video) for name, video in chosen for pair in videos[name][video]]
  reader = VideoMaskReader(
    str(root),
    tuple(pair for pair, _ in rows),
    classes.values,
    tuple(video for _, video in rows),
    first_channel,
  )
  return Source(
    reader,
    len(classes.names),
    classes.names,
    None,
    fields=("image", "mask", "label", "clip_name"),
    order="whole videos, " + splits.SHUFFLED,
    records="frames",
  )


def _beside(root: pathlib.Path, images: pathlib.Path, masks: pathlib.Path) -> Videos:
  return {
    name: pairs_by_stem(root, images_in(folder), [masks / name])
    for name, folder in subfolders(images).items()
  }


def _davis_videos(root: pathlib.Path, path: pathlib.Path) -> Videos:
  lines = [line.split()[0] for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
  names = dict.fromkeys(pathlib.PurePosixPath(line).parent.name or line for line in lines)
  images, masks = root / "JPEGImages" / "480p", root / "Annotations" / "480p"
  missing = [name for name in names if not (images / name).is_dir()]
  if missing:
    raise ValueError(f"{path} names the video {missing[0]!r}, but there is no folder {images / missing[0]}")
  return {name: pairs_by_stem(root, images_in(images / name), [masks / name]) for name in names}


def _kitti_videos(root: pathlib.Path, images: pathlib.Path, maps: pathlib.Path) -> Videos:
  found = {}
  for name, folder in subfolders(maps).items():
    stems = sorted(path.stem for path in images_in(folder))
    pairs = [(images / name / f"{stem}.png", folder / f"{stem}.png") for stem in stems]
    found[name] = [tuple(os.path.relpath(path, root) for path in pair) for pair in pairs]
  return found
