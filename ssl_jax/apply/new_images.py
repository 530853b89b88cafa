"""Images that a trained network is applied to: a folder or a data set, in the form in which it takes them."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_jax.config.schema import TrainConfig
from ssl_jax.data import host, python_data, sources, transforms
from ssl_jax.data.elements import Transform
from ssl_jax.data.folder_layout import find_splits
from ssl_jax.data.reader import Source


class NewImages(NamedTuple):
  """Records, and what the network gets of them."""

  source: Source
  transform: Transform  # a square image of each record, and its label or -1
  names: tuple[str, ...]  # of the records: path below the folder, or the id of the record
  protocol: dict[str, Any]  # data set, split, resize and crop

  def identity(self) -> dict[str, Any]:
    """The protocol and a digest of the names: whether interrupted work was about the same images."""
    digest = hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogateescape")).hexdigest()
    return {**self.protocol, "images": len(self.names), "names": digest}


def open_new_images(
  trained: TrainConfig,
  *,
  data_dir: str = "",
  source: Any = None,
  name: str = "",
  split: str = "",
  size: int = 0,
  crop_ratio: float = 1.0,
) -> NewImages:
  """Opens images to which a trained network is applied. They are resized and centre-cropped.

  Args:
    trained: the config of the run.
    data_dir, name: as in `config.data`. With a `data_dir` alone it is a folder of images; with neither, the
      data set that the network was trained on.
    source: images in the place of a data set: an object with `len(source)` and `source[i]`, or a mapping of
      split names to such objects; see `data/python_data.py`.
    split: "": all images of a folder or of a single `source`, with or without splits; of another data set,
      what the network was trained on.
    size: side in pixels of the images that the network gets; 0: that of the training views.
    crop_ratio: fraction of the shorter side that the centre crop keeps.
  Raises: ValueError for images that do not exist, or options out of range.
  """
  if not 0 < crop_ratio <= 1:
    raise ValueError(f"--crop_ratio={crop_ratio}: use a fraction in (0, 1], such as 0.875")
  if size < 0:
    raise ValueError(f"--size={size}: use a number of pixels, or 0 for that of the training")
  name = name or ("folder" if data_dir else trained.data.name)
  if source is not None:
    name, data_dir = python_data.GIVEN, ""
    split = split or ("train" if not isinstance(source, Mapping) else trained.data.split)
  if not data_dir and name == trained.data.name:
    data_dir = trained.data.data_dir
  data_dir = os.path.expanduser(data_dir)
  size = size or trained.augment["size"]
  resize = round(size / crop_ratio)
  if not split and name == "folder":
    split = "+".join(find_splits(pathlib.Path(data_dir)))
    opened = sources.make(name, split=split, data_dir=data_dir)
  else:
    split = split or trained.data.split
    opened = sources.open_split(name, split=split, data_dir=data_dir, given=source, image_size=resize)
  interpolation = trained.data.interpolation
  pixels = transforms.resize_center_crop(size, resize, interpolation=interpolation)
  protocol = {"data": name, "split": split, "resize": resize, "crop": size, "interpolation": interpolation}
  return NewImages(opened, host.one_image(pixels, opened), _names(opened, data_dir), protocol)


def open_video(trained: TrainConfig, video: str, **chosen: Any) -> NewImages:
  """Opens the frames of a video file, or of a folder of numbered images, as images.

  Args:
    chosen: the options of `open_new_images`, of which only `size` and `crop_ratio` may be given.
  Raises: ValueError for another option, or a video that does not exist; as `video.clips.open_clip`.
  """
  given = [option for option in ("data_dir", "source", "name", "split") if chosen[option] not in (None, "")]
  if given:
    raise ValueError(
      f"--video={video} and --{given[0]}={chosen[given[0]]} are both given; leave out one of them"
    )
  from ssl_jax.video.frame_reader import open_frames  # here: it needs PyAV for video files

  path = os.path.expanduser(video)
  if not os.path.exists(path):
    raise ValueError(f"--video={video} does not exist; name a video file or a folder of numbered images")
  source = open_frames(path)
  like = open_new_images(trained, name="synthetic", size=chosen["size"], crop_ratio=chosen["crop_ratio"])
  protocol = {**like.protocol, "data": "video", "split": os.path.basename(path)}
  pixels = transforms.resize_center_crop(
    protocol["crop"], protocol["resize"], interpolation=protocol["interpolation"]
  )
  names = tuple(source.name(i) for i in range(len(source)))
  return NewImages(source, host.one_image(pixels, source), names, protocol)


def _names(source: Source, data_dir: str) -> tuple[str, ...]:
  start = os.path.join(data_dir, "") if data_dir else ""
  return tuple(source.name(i).removeprefix(start) for i in range(len(source)))
