"""Finds the frames and masks of Cityscapes-VPS, YouTube-VOS and COCO Videos as they are published.

The first and the last have masks in COCO's panoptic format: the colour of a pixel is the number of a segment,
and a JSON file tells the class of each segment. See video_masks.py for what a record holds.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.coco_panoptic import COCO_PANOPTIC, COCO_THINGS
from ssl_jax.data.mask_layouts import images_in, pairs_by_stem, subfolders
from ssl_jax.data.mask_values import IGNORE, MaskClasses, value_table
from ssl_jax.data.video_masks import (
  CITYSCAPES_NAMES,
  VideoFrame,
  Videos,
  VideoSet,
  find_davis,
  find_kitti_step,
  find_video_masks,
)

_VPS_JSON = "panoptic_gt_{split}_city_vps.json"
_CITY = re.compile(r"(?P<city>[^\W\d_][^_]*)_(?P<sequence>\d{6})_(?P<number>\d{6})")  # of Cityscapes' names
_VPS_EVERY = 5  # every fifth frame of Cityscapes-VPS is labelled
_ALL_FRAMES = "_all_frames"  # ends the names of YouTube-VOS's folders with all frames instead of every fifth


class _Segments(NamedTuple):
  """The segments of an image of a panoptic JSON file."""

  mask: str  # the name of its file
  values: np.ndarray  # i16[n, 4], see mask_values.py
  crowd: tuple[int, ...]


def find_cityscapes_vps(data_dir: str) -> VideoSet:
  """Finds Cityscapes-VPS: the 19 classes of Cityscapes; persons, riders and vehicles are objects.

  `data_dir` holds for SPLIT, such as val, the file panoptic_gt_SPLIT_city_vps.json, the masks
  SPLIT/panoptic_video/*.png and the labelled frames SPLIT/img/*.png, every fifth of a video: with these alone
  there are 3.4 frames a second. If SPLIT/img_all is there too, with Cityscapes' own names, the frames between
  them come from it, without labels, and there are 17 a second. A video is called as its names begin: "0005".

  Raises: ValueError if there is no such JSON file, or a file is not of this form.
  """
  root = pathlib.Path(data_dir)
  before, after = _VPS_JSON.split("{split}")
  found = {
    path.name.removeprefix(before).removesuffix(after): path
    for path in sorted(root.glob(_VPS_JSON.format(split="*")))
  }
  if not found:
    raise ValueError(
      f"data_dir={data_dir!r} holds no file {_VPS_JSON.format(split='val')}, beside the folders val/img and "
      "val/panoptic_video; give the folder cityscapes_vps, and make the file by the scripts of the data set"
    )
  rates = {name: 17.0 if (root / name / "img_all").is_dir() else 17.0 / _VPS_EVERY for name in found}
  find = {name: functools.partial(_vps_videos, root, name, path) for name, path in found.items()}
  classes, things = MaskClasses(None, CITYSCAPES_NAMES), CITYSCAPES_NAMES[CITYSCAPES_NAMES.index("person") :]
  return VideoSet(root, find, classes, things, rates)


def find_youtube_vos(data_dir: str) -> VideoSet:
  """Finds YouTube-VOS: "background" and the categories of its objects, in the order of the alphabet.

  `data_dir` holds for SPLIT, such as train or valid, SPLIT/JPEGImages/VIDEO/FRAME.jpg, the masks
  SPLIT/Annotations/VIDEO/FRAME.png, whose palette indices are objects, and SPLIT/meta.json, which states the
  category of each object of a video; an object without one has no class. There are 94 categories: 65 in
  train, and those that valid alone has. SPLIT/JPEGImages has every fifth frame, 6 a second. A folder
  SPLIT_all_frames with all of them is a split too; what it lacks is read from SPLIT. Most frames of valid
  have no mask: they have no labels.

  Raises: ValueError if there is no split, or its meta.json is missing or not of this form.
  """
  root = pathlib.Path(data_dir)
  there = subfolders(root) if root.is_dir() else {}
  images = {name: folder for name, folder in there.items() if (folder / "JPEGImages").is_dir()}
  if not images:
    raise ValueError(
      f"data_dir={data_dir!r} holds no folder SPLIT/JPEGImages, such as train/JPEGImages; give the folder of "
      "YouTube-VOS"
    )
  plain = {name: root / name.removesuffix(_ALL_FRAMES) for name in images}
  meta = {name: _first_of(folder / "meta.json", plain[name] / "meta.json") for name, folder in images.items()}
  objects = {path: _categories(path) for path in dict.fromkeys(meta.values())}
  names = sorted(
    {kind for videos in objects.values() for of_video in videos.values() for kind in of_video.values()}
  )
  find = {
    name: functools.partial(
      _youtube_videos,
      root,
      images[name] / "JPEGImages",
      _first_of(images[name] / "Annotations", plain[name] / "Annotations"),
      objects[meta[name]],
      names,
    )
    for name in images
  }
  rates = {name: 30.0 if name.endswith(_ALL_FRAMES) else 6.0 for name in images}
  return VideoSet(root, find, MaskClasses(None, ("background", *names)), tuple(names), rates)


def find_coco_videos(data_dir: str) -> VideoSet:
  """Finds COCO Videos: the 133 classes of COCO's panoptic task; the 80 classes of its objects are things.

  `data_dir`, or coco_videos in it, holds raw_images/VIDEO/FRAME, panoptic_images/VIDEO/FRAME.png and
  annotations/train/VIDEO.json in COCO's panoptic format, as the code that was released with the data reads
  them. They are one split, "test", of 10 frames a second. The category 255 means no class. A frame that the
  JSON file does not list has no labels.

  Raises: ValueError if a folder is missing, or a JSON file is missing or not of this form.
  """
  given = pathlib.Path(data_dir)
  root = given / "coco_videos" if (given / "coco_videos").is_dir() else given
  for name in ("raw_images", "panoptic_images", "annotations/train"):
    if not (root / name).is_dir():
      raise ValueError(
        f"data_dir={data_dir!r} holds no folder {name}; give the folder coco_videos with raw_images, "
        "panoptic_images and annotations"
      )
  find = {"test": functools.partial(_coco_videos, root)}
  classes = MaskClasses(None, tuple(COCO_PANOPTIC.values()))
  return VideoSet(root, find, classes, COCO_THINGS, {"test": 10.0})


LAYOUTS = {
  "video_masks": find_video_masks,
  "davis": find_davis,
  "kitti_step": find_kitti_step,
  "cityscapes_vps": find_cityscapes_vps,
  "youtube_vos": find_youtube_vos,
  "coco_videos": find_coco_videos,
}


def _first_of(path: pathlib.Path, other: pathlib.Path) -> pathlib.Path:
  return path if path.exists() else other


def _read_json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise ValueError(f"there is no file {path}; it tells the classes of the masks") from error
  except ValueError as error:
    raise ValueError(f"{path} is not a JSON file: {error}") from error


def _vps_videos(root: pathlib.Path, split: str, path: pathlib.Path) -> Videos:
  stored = _read_json(path)
  of_image = _panoptic(stored, path, dict(enumerate(range(len(CITYSCAPES_NAMES)))), key="image_id")
  videos: dict[str, dict[str, VideoFrame]] = collections.defaultdict(dict)
  for image in sorted(stored["images"], key=lambda image: str(image["id"])):
    found = of_image.get(image["id"])
    if found is not None:
      frame = os.path.join(split, "img", image["file_name"])
      mask = os.path.join(split, "panoptic_video", found.mask)
      name = str(image["id"])
      videos[name.split("_")[0]][name] = VideoFrame(frame, mask, found.values, found.crowd)
  folder = root / split / "img_all"
  between = _by_sequence(folder, root) if folder.is_dir() else {}
  return {name: _filled(frames, between) for name, frames in videos.items()}


def _by_sequence(folder: pathlib.Path, root: pathlib.Path) -> dict[tuple[str, str], dict[int, str]]:
  """{(city, sequence): {number of the frame: its path}}."""
  found: dict[tuple[str, str], dict[int, str]] = collections.defaultdict(dict)
  for path in images_in(folder):
    if name := _CITY.search(path.stem):
      found[name["city"], name["sequence"]][int(name["number"])] = os.path.relpath(path, root)
  return found


def _filled(labelled: Mapping[str, VideoFrame], between: Mapping) -> list[VideoFrame]:
  """The frames of a video in order, with those before and between the labelled ones."""
  places = {_CITY.search(name): frame for name, frame in labelled.items()}
  if None in places or not between:
    return list(labelled.values())
  sequences = {(place["city"], place["sequence"]) for place in places if place}
  own = {int(place["number"]): frame for place, frame in places.items() if place}
  # The labelled frames are the last ones of every five.
  inside = range(min(own) - _VPS_EVERY + 1, max(own) + 1)
  others = {number: path for key in sequences for number, path in between.get(key, {}).items()}
  return [
    own[number] if number in own else VideoFrame(others[number], "")
    for number in inside
    if number in own or number in others
  ]


def _panoptic(stored: Any, path: pathlib.Path, numbers: Mapping[int, int], key: str) -> dict[Any, _Segments]:
  """The segments of each image by `key` of its annotation.

  Args:
    numbers: the number of the class, or IGNORE, by its category id.
  Raises: ValueError if the file is not in COCO's panoptic format, or names another category.
  """
  try:
    return {annotation[key]: _segments(annotation, path, numbers) for annotation in stored["annotations"]}
  except (KeyError, TypeError) as error:
    raise ValueError(
      f"{path} is not in COCO's panoptic format: {type(error).__name__}: {error}; an annotation has "
      "image_id, file_name and segments_info with the id and category_id of each segment"
    ) from error


def _segments(annotation: Mapping, path: pathlib.Path, numbers: Mapping[int, int]) -> _Segments:
  rows = {0: IGNORE}  # black pixels have no class
  for segment in annotation["segments_info"]:
    if segment["category_id"] not in numbers:
      raise ValueError(
        f"{path}: a segment of {annotation['file_name']} has category_id {segment['category_id']}, which is "
        "not a class of this data set; correct it, or remove the segment"
      )
    rows[int(segment["id"])] = numbers[segment["category_id"]]
  values = [(code % 256, code // 256 % 256, code // 65536, kind) for code, kind in rows.items()]
  crowd = tuple(int(s["id"]) for s in annotation["segments_info"] if s.get("iscrowd"))
  return _Segments(annotation["file_name"], np.array(values, np.int16), crowd)


def _categories(path: pathlib.Path) -> dict[str, dict[int, str]]:
  """{video: {number of the object: its category}} of YouTube-VOS's meta.json."""
  stored = _read_json(path)
  try:
    return {
      video: {int(number): of["category"] for number, of in found["objects"].items() if "category" in of}
      for video, found in stored["videos"].items()
    }
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(
      f"{path} does not list videos with objects as expected: {type(error).__name__}: {error}; YouTube-VOS's "
      'has {"videos": {VIDEO: {"objects": {"1": {"category": NAME}}}}}'
    ) from error


def _youtube_videos(
  root: pathlib.Path,
  images: pathlib.Path,
  masks: pathlib.Path,
  objects: Mapping[str, Mapping[int, str]],
  names: list[str],
) -> Videos:
  number = {name: i for i, name in enumerate(names, 1)}
  found = {}
  for name, folder in subfolders(images).items():
    kinds = {k: IGNORE for k in range(1, IGNORE)}  # objects without a category
    kinds |= {k: number[kind] for k, kind in objects.get(name, {}).items()}
    values = value_table({0: 0, **kinds})
    pairs = pairs_by_stem(root, images_in(folder), [masks / name])
    found[name] = [VideoFrame(*pair, values=values) for pair in pairs]
  return found


def _coco_videos(root: pathlib.Path) -> Videos:
  numbers = {category: i for i, category in enumerate(COCO_PANOPTIC)} | {IGNORE: IGNORE}
  found = {}
  for name, folder in subfolders(root / "raw_images").items():
    path = root / "annotations" / "train" / f"{name}.json"
    labelled = _panoptic(_read_json(path), path, numbers, key="file_name")
    of_stem = {pathlib.PurePosixPath(file).stem: of for file, of in labelled.items()}
    found[name] = []
    for image, mask in pairs_by_stem(root, images_in(folder), [root / "panoptic_images" / name]):
      of = of_stem.get(pathlib.PurePath(image).stem)
      found[name].append(VideoFrame(image, mask, of.values, of.crowd) if of else VideoFrame(image, ""))
  return found
