"""Cityscapes-VPS, YouTube-VOS and COCO Videos, in small trees of the layouts that they are published in."""

import json

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import sources
from ssl_jax.data.coco_panoptic import COCO_PANOPTIC, COCO_THINGS
from ssl_jax.data.mask_values import IGNORE, decode_classes
from ssl_jax.data.segments import decode_segments
from tests.data.test_video_masks import SIZE, names_of, write_image, write_mask

CROWD = 3 + 256 * 2 + 65536


def colour(code):
  return code % 256, code // 256 % 256, code // 65536


def write_panoptic(path, codes):
  """A colour image whose pixels have these codes, from the upper left on."""
  pixels = np.zeros((SIZE[1] * SIZE[0], 3), np.uint8)
  pixels[: len(codes)] = [colour(code) for code in codes]
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels.reshape(SIZE[1], SIZE[0], 3)).save(path)


def segments_info(**more):
  """A road, two cars and a crowd of persons."""
  rows = [(1, 0), (2, 13), (300, 13), (CROWD, 11)]
  return [{"id": code, "category_id": kind, "iscrowd": int(code == CROWD), **more} for code, kind in rows]


def write_json(path, stored):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(stored))


def city_tree(root, between=()):
  """Two videos of two labelled frames each, the fifth and the tenth; `between`: numbers in img_all."""
  images, annotations = [], []
  for video, first in (("0003", 4), ("0001", 34)):
    for number in (first, first + 5):
      name = f"{video}_00{number:02}_frankfurt_000001_{number:06}"
      write_image(root / f"val/img/{name}_newImg8bit.png", number)
      write_panoptic(root / f"val/panoptic_video/{name}_final_mask.png", [1, 2, 300, CROWD])
      images.append({"id": name, "file_name": f"{name}_newImg8bit.png"})
      annotations.append(
        {"image_id": name, "file_name": f"{name}_final_mask.png", "segments_info": segments_info()}
      )
  for number in between:
    write_image(root / f"val/img_all/frankfurt_000001_{number:06}_leftImg8bit.png", number)
  stored = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "road"}]}
  write_json(root / "panoptic_gt_val_city_vps.json", stored)


def open_set(name, root, split):
  return sources.make(name, split=split, data_dir=str(root))


def test_cityscapes_vps(tmp_path):
  city_tree(tmp_path)
  source = open_set("cityscapes_vps", tmp_path, "val")
  assert names_of(source) == ["0001"] * 2 + ["0003"] * 2
  classes = decode_classes(source[0])
  assert classes[0].tolist() == [0, 13, 13, 11, IGNORE, IGNORE]
  segments = decode_segments(source[0]["segments"], (SIZE[1], SIZE[0]))
  assert segments[0].tolist() == [2, 3, 301, -CROWD - 1, 1, 1]
  assert source.num_classes == 19 and source.things[0] == "person" and "road" not in source.things
  assert source.clip_names == tuple(names_of(source)) and source.left_out == ""


def test_frames_between_the_labelled_ones_have_no_labels(tmp_path):
  """The ten frames of a video end with its last labelled one; those of its neighbours are not its own."""
  city_tree(tmp_path, between=range(28, 42))
  source = open_set("cityscapes_vps", tmp_path, "val")
  numbers = [int(source.name(i).split("_")[-2]) for i in range(len(source))]
  assert numbers == [*range(30, 40), 4, 9]
  assert [len(np.unique(decode_classes(source[i]))) > 1 for i in range(10)] == [
    i in (4, 9) for i in range(10)
  ]
  assert (decode_classes(source[0]) == IGNORE).all()
  assert not decode_segments(source[0]["segments"], (SIZE[1], SIZE[0])).any()
  assert source.left_out == "masks of 8 frames, which have none"


def youtube_tree(root):
  objects = {"train": {"b": {"1": "zebra", "2": "ape"}, "a": {"1": "ape"}}, "valid": {"c": {"7": "cat"}}}
  for split, videos in objects.items():
    for video in videos:
      for frame in (0, 5, 10):
        write_image(root / split / "JPEGImages" / video / f"{frame:05}.jpg")
        if split == "train" or not frame:
          write_mask(root / split / "Annotations" / video / f"{frame:05}.png", [0, 1, 2, 7])
    kinds = {
      video: {"objects": {number: {"category": kind, "frames": ["00000"]} for number, kind in of.items()}}
      for video, of in videos.items()
    }
    write_json(root / split / "meta.json", {"videos": kinds})
  return objects


def test_youtube_vos(tmp_path):
  youtube_tree(tmp_path)
  source = open_set("youtube_vos", tmp_path, "train")
  assert source.mask_classes == ("background", "ape", "cat", "zebra") and source.things == (
    "ape",
    "cat",
    "zebra",
  )
  assert names_of(source) == ["a"] * 3 + ["b"] * 3
  assert decode_classes(source[0])[0, :4].tolist() == [0, 1, IGNORE, IGNORE]
  assert decode_classes(source[3])[0, :4].tolist() == [0, 3, 1, IGNORE]
  assert decode_segments(source[3]["segments"], SIZE)[0, :4].tolist() == [1, 2, 3, 8]
  valid = open_set("youtube_vos", tmp_path, "valid")
  assert [(decode_classes(valid[i]) == IGNORE).all() for i in range(3)] == [False, True, True]
  assert decode_classes(valid[0])[0, :4].tolist() == [0, IGNORE, IGNORE, 2]


def test_youtube_vos_with_all_frames(tmp_path):
  youtube_tree(tmp_path)
  for frame in range(11):
    write_image(tmp_path / f"valid_all_frames/JPEGImages/c/{frame:05}.jpg")
  source = open_set("youtube_vos", tmp_path, "valid_all_frames")
  labelled = [(decode_classes(source[i]) != IGNORE).any() for i in range(11)]
  assert labelled == [True] + [False] * 10


def test_coco_videos(tmp_path):
  root = tmp_path / "coco_videos"
  for video in ("tokyo", "bar"):
    for frame in range(3):
      write_image(root / f"raw_images/{video}/frame_{frame:04}.png")
      write_panoptic(root / f"panoptic_images/{video}/frame_{frame:04}.png", [5, 6, 7])
    kinds = [{"id": 5, "category_id": 1}, {"id": 6, "category_id": 200}, {"id": 7, "category_id": 255}]
    listed = [{"image_id": i, "file_name": f"frame_{i:04}.png", "segments_info": kinds} for i in (0, 2)]
    write_json(root / f"annotations/train/{video}.json", {"annotations": listed})
  source = open_set("coco_videos", tmp_path, "test")
  assert names_of(source) == ["bar"] * 3 + ["tokyo"] * 3
  assert decode_classes(source[0])[0, :4].tolist() == [0, 132, IGNORE, IGNORE]
  assert (decode_classes(source[1]) == IGNORE).all()
  assert source.num_classes == 133 and len(source.things) == 80
  (root / "annotations/train/bar.json").unlink()
  with pytest.raises(ValueError, match="there is no file .*bar.json; it tells the classes of the masks"):
    open_set("coco_videos", tmp_path, "test")


def test_the_classes_of_the_panoptic_task():
  assert len(COCO_PANOPTIC) == 133 and len(COCO_THINGS) == 80
  assert (
    COCO_PANOPTIC[21] == "cow" and COCO_PANOPTIC[144] == "platform" and COCO_PANOPTIC[200] == "rug-merged"
  )


def test_what_is_missing_or_wrong_is_named(tmp_path):
  with pytest.raises(ValueError, match="holds no file panoptic_gt_val_city_vps.json, beside the folders"):
    open_set("cityscapes_vps", tmp_path, "val")
  with pytest.raises(ValueError, match="holds no folder SPLIT/JPEGImages, such as train/JPEGImages"):
    open_set("youtube_vos", tmp_path, "train")
  with pytest.raises(ValueError, match="holds no folder raw_images; give the folder coco_videos"):
    open_set("coco_videos", tmp_path, "test")
  city_tree(tmp_path)
  file = tmp_path / "panoptic_gt_val_city_vps.json"
  stored = json.loads(file.read_text())
  stored["annotations"][0]["segments_info"][0]["category_id"] = 19
  file.write_text(json.dumps(stored))
  with pytest.raises(ValueError, match="has category_id 19, which is not a class of this data set"):
    open_set("cityscapes_vps", tmp_path, "val")
  del stored["annotations"][0]["segments_info"]
  file.write_text(json.dumps(stored))
  with pytest.raises(ValueError, match="is not in COCO's panoptic format: KeyError: 'segments_info'"):
    open_set("cityscapes_vps", tmp_path, "val")
  youtube_tree(tmp_path)
  (tmp_path / "train/meta.json").write_text('{"videos": {"a": {}}}')
  with pytest.raises(ValueError, match="meta.json does not list videos with objects as expected: KeyError"):
    open_set("youtube_vos", tmp_path, "train")
