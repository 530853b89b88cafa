"""Videos with masks, in small trees of the layouts that the data sets have."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import sources
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import host_batch
from ssl_jax.data.full_mask import ImageAndFullMask
from ssl_jax.data.mask_values import IGNORE, decode_classes
from ssl_jax.data.segments import code_of, decode_segments

SIZE = (6, 4)  # width, height


def write_image(path, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", SIZE, (value, 0, 0)).save(path)


def write_mask(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.resize(np.array(values, np.uint8), SIZE[::-1])).save(path)


def names_of(source):
  return [source[i]["clip_name"] for i in range(len(source))]


def test_folders_of_frames(tmp_path):
  for split, videos in {"train": ("b", "a", "c"), "test": ("d",)}.items():
    for video in videos:
      for frame in (10, 2, 1):
        write_image(tmp_path / split / "images" / video / f"{frame:03}.jpg", frame)
        write_mask(tmp_path / split / "masks" / video / f"{frame:03}.png", [0, 1, 255])
  (tmp_path / "classes.txt").write_text("road\ntree\n")
  source = sources.make("video_masks", split="train", data_dir=str(tmp_path))
  assert names_of(source) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
  assert [source.name(i)[-7:] for i in range(3)] == ["001.jpg", "002.jpg", "010.jpg"]
  assert source.mask_classes == ("road", "tree") and source.summary() == "9 frames of 2 classes"
  transform = ImageAndFullMask(0, (4, 6), (4, 6))
  assert host_batch(transform, [source[0]])["mask"].shape == (1, 4, 6)
  assert len(sources.make("video_masks", split="test", data_dir=str(tmp_path))) == 3


def test_parts_of_a_split_hold_whole_videos(tmp_path):
  for video in "abcde":
    for frame in range(4):
      write_image(tmp_path / "images" / video / f"{frame}.png")
      write_mask(tmp_path / "masks" / video / f"{frame}.png", [0])
  parts = [
    names_of(sources.make("video_masks", split=part, data_dir=str(tmp_path)))
    for part in ("train[:60%]", "train[60%:]")
  ]
  assert [len(part) for part in parts] == [12, 8]
  assert not set(parts[0]) & set(parts[1])
  assert all(part.count(name) == 4 for part in parts for name in part)


def test_davis(tmp_path):
  for video in ("bear", "camel"):
    for frame in range(2):
      write_image(tmp_path / "JPEGImages/480p" / video / f"{frame:05}.jpg")
      write_mask(tmp_path / "Annotations/480p" / video / f"{frame:05}.png", [0, 1, 2, 255])
  for path, text in {
    "480p/val.txt": "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n",
    "480p/train.txt": "/JPEGImages/480p/camel/00000.jpg /Annotations/480p/camel/00000.png\n",
    "2017/val.txt": "bear\ncamel\n",
  }.items():
    (tmp_path / "ImageSets" / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "ImageSets" / path).write_text(text)
  source = sources.make("davis", split="val", data_dir=str(tmp_path))
  assert names_of(source) == ["bear"] * 2 + ["camel"] * 2
  assert np.unique(decode_classes(source[0])).tolist() == [0, 1]
  assert source.mask_classes == ("background", "object")
  assert names_of(sources.make("davis", split="train", data_dir=str(tmp_path))) == ["camel"] * 2
  (tmp_path / "ImageSets/2017/val.txt").write_text("bear\ndeer\n")
  with pytest.raises(ValueError, match="names the video 'deer', but there is no folder"):
    sources.make("davis", split="val", data_dir=str(tmp_path))


def test_kitti_step(tmp_path):
  for video in ("0002", "0006"):
    for frame in range(2):
      write_image(tmp_path / "training/image_02" / video / f"{frame:06}.png")
      pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
      pixels[0, :4] = [(18, 1, 7), (13, 0, 2), (255, 0, 0), (13, 0, 0)]
      path = tmp_path / "panoptic_maps/val" / video / f"{frame:06}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pixels).save(path)
  source = sources.make("kitti_step", split="val", data_dir=str(tmp_path))
  assert names_of(source) == ["0002"] * 2 + ["0006"] * 2
  classes = decode_classes(source[0])
  assert classes[0, :4].tolist() == [18, 13, IGNORE, 13] and not classes[1:].any()
  assert source.num_classes == 19 and source.mask_classes[18] == "bicycle"
  segments = decode_segments(source[0]["segments"], classes.shape)
  codes = [code_of(18, 1, 7), code_of(13, 0, 2), 255, 13]
  assert (np.abs(segments[0, :4]) - 1).tolist() == codes
  assert (segments < 0).sum() == 1 and segments[0, 3] < 0  # a car without a number is a crowd


def test_a_frame_without_a_mask_has_no_labels(tmp_path):
  for frame in range(3):
    write_image(tmp_path / f"images/a/{frame}.png")
    if frame != 1:
      write_mask(tmp_path / f"masks/a/{frame}.png", [0, 1])
  source = sources.make("video_masks", data_dir=str(tmp_path))
  assert [(decode_classes(source[i]) == IGNORE).all() for i in range(3)] == [False, True, False]
  assert source.summary() == "3 frames; not read: masks of 1 frames, which have none"
  (tmp_path / "masks/a/2.png").unlink()  # after the set was opened: no frame loses its labels unnoticed
  with pytest.raises(DecodeError, match="its mask masks/a/2.png is gone"):
    source[2]


def test_names_of_clips_are_told_without_reading(tmp_path):
  for video in "ab":
    for frame in range(2):
      write_image(tmp_path / "images" / video / f"{frame}.png")
      write_mask(tmp_path / "masks" / video / f"{frame}.png", [0])
  source = sources.make("video_masks", data_dir=str(tmp_path))
  mixed = sources.shuffled(source)
  assert mixed.clip_names == tuple(names_of(mixed)) != source.clip_names == tuple("aabb")


def test_what_is_missing_is_named(tmp_path):
  with pytest.raises(ValueError, match="holds no folders images/VIDEO and masks/VIDEO"):
    sources.make("video_masks", data_dir=str(tmp_path))
  with pytest.raises(ValueError, match="holds no folder JPEGImages/480p"):
    sources.make("davis", data_dir=str(tmp_path))
  with pytest.raises(ValueError, match="holds no folder training/image_02"):
    sources.make("kitti_step", data_dir=str(tmp_path))
  write_image(tmp_path / "images/a/1.png")
  write_mask(tmp_path / "masks/b/1.png", [0])
  with pytest.raises(ValueError, match="not one mask of the 1 pairs"):
    sources.make("video_masks", data_dir=str(tmp_path))
