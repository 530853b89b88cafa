"""Segmentation data sets in the folders in which they are published: in miniature, and real photographs."""

import csv
import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import host, pipeline, sources
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.mask_layouts import CAMVID, CITYSCAPES, VOC

from .conftest import encoded, smooth

SIZE = 8
WHOLE = host.image_mask(host.Frame(SIZE))


def put(path, *, value=None, mask=None, kind="PNG"):
  """Writes an image, or a mask that is `value` everywhere, or the mask given."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if value is not None:
    mask = np.full((SIZE, SIZE), value, np.uint8)
  path.write_bytes(encoded(smooth(SIZE, SIZE, len(path.stem)) if mask is None else mask, kind))


def opened(kind, root, split="train"):
  return sources.make(kind, data_dir=str(root), split=split)


def values(source):
  """The class of each mask that is the same everywhere."""
  masks = [WHOLE(None, source[i])["mask"] for i in range(len(source))]
  assert all((mask == mask[0, 0]).all() for mask in masks)
  return [int(mask[0, 0]) for mask in masks]


def write_voc(root):
  for i, name in enumerate(("a", "b", "c", "d", "e")):
    put(root / "JPEGImages" / f"{name}.jpg", kind="JPEG")
    if name in "ab":
      put(root / "SegmentationClass" / f"{name}.png", value=(20, 255)[i])
    if name in "bcd":
      put(root / "SegmentationClassAug" / f"{name}.png", value=3 * i)
  for path, text in {
    "Segmentation/train.txt": "b\na\n",
    "Segmentation/val.txt": "e\na\n",
    "SegmentationAug/trainaug.txt": "/JPEGImages/d.jpg /SegmentationClassAug/d.png\n/JPEGImages/c.jpg x\na\n",
    "SegmentationAug/val.txt": "c\n",
  }.items():
    file = root / "ImageSets" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("inside", ["", "VOCdevkit/VOC2012", "VOC2012"])
def test_voc_lists_its_splits_and_falls_back_to_the_augmented_masks(inside, tmp_path):
  write_voc(tmp_path / inside)
  source = opened("voc_masks", tmp_path)
  assert (
    source.num_classes == 21 and source.class_names[0] == "background" and source.class_names == tuple(VOC)
  )
  assert source.name(0).endswith("JPEGImages/b.jpg") and source.fields == ("image", "mask", "label")
  assert values(source) == [255, 20]  # the order of the list; b's own mask, not the augmented one
  for split in ("train_aug", "trainaug"):
    assert values(opened("voc_masks", tmp_path, split)) == [9, 6, 20]
  val = opened("voc_masks", tmp_path, "val")
  with pytest.raises(DecodeError, match="it has no mask SegmentationClass/e.png"):
    val[0]
  with pytest.raises(ValueError, match="has no split 'test'; .*known: .*train.*val"):
    opened("voc_masks", tmp_path, "test")


def test_voc_refuses_what_it_does_not_define(tmp_path):
  write_voc(tmp_path)
  put(tmp_path / "SegmentationClass" / "a.png", value=21)
  with pytest.raises(DecodeError, match=r"does not define: 21 \(64 pixels\)"):
    values(opened("voc_masks", tmp_path))
  shutil.rmtree(tmp_path / "JPEGImages")
  with pytest.raises(ValueError, match="not one image of the 2 pairs .* would be JPEGImages/b.jpg"):
    opened("voc_masks", tmp_path)
  shutil.rmtree(tmp_path / "ImageSets")
  with pytest.raises(ValueError, match="there is no folder ImageSets in .* or .*VOCdevkit/VOC2012 or"):
    opened("voc_masks", tmp_path)


def test_cityscapes_maps_its_label_ids_to_the_evaluated_classes(tmp_path):
  ids = np.full((SIZE, SIZE), 255, np.uint8)
  ids.flat[:34] = range(34)
  for city, name in (("bonn", "bonn_0_1"), ("aachen", "aachen_2_3")):
    put(tmp_path / f"leftImg8bit/train/{city}/{name}_leftImg8bit.png")
    put(tmp_path / f"gtFine/train/{city}/{name}_gtFine_labelIds.png", mask=ids)
    put(tmp_path / f"gtFine/train/{city}/{name}_gtFine_color.png")
  source = opened("cityscapes", tmp_path)
  assert len(source) == 2 and "aachen" in source.name(0)
  assert source.num_classes == 19 and source.class_names[:2] == ("road", "sidewalk")
  assert source.class_names[18] == "bicycle"
  found = WHOLE(None, source[0])["mask"].ravel()
  for value in range(34):
    expected = source.class_names.index(CITYSCAPES[value]) if value in CITYSCAPES else 255
    assert found[value] == expected
  assert (found[34:] == 255).all() and len(set(found.tolist())) == 20
  put(tmp_path / "gtFine/train/aachen/aachen_2_3_gtFine_labelIds.png", value=34)
  with pytest.raises(DecodeError, match=r"does not define: 34 \(64 pixels\)"):
    WHOLE(None, source[0])


def test_ade20k_reduces_its_zero_label(tmp_path):
  root = tmp_path / "ADEChallengeData2016"
  for stored, levels in (("training", (0, 1, 150, 255)), ("validation", (2, 151))):
    for i, level in enumerate(levels):
      put(root / "images" / stored / f"ADE_{i}.jpg", kind="JPEG")
      put(root / "annotations" / stored / f"ADE_{i}.png", value=level)
  for split in ("train", "training"):
    source = opened("ade20k", tmp_path, split)
    assert values(source) == [255, 0, 149, 255]
  assert source.num_classes == 150 and source.class_names[149] == "class 150"
  rows = [f"{k}\t0.1\t5\t6\t1\tname {k}, other name" for k in range(1, 151)]
  (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows, ""]))
  source = opened("ade20k", root, "val")
  assert source.class_names[:2] == ("name 1", "name 2") and len(source.class_names) == 150
  assert WHOLE(None, source[0])["mask"].max() == 1
  with pytest.raises(DecodeError, match=r"does not define: 151 \(64 pixels\)"):
    WHOLE(None, source[1])
  (root / "objectInfo150.txt").write_text("\n".join(rows))
  with pytest.raises(
    ValueError, match="objectInfo150.txt lists 149 classes below its headings; ADE20K has 150"
  ):
    opened("ade20k", root)


LABELS = "0: unlabeled\n1: person\n2: bicycle\n4: wood\n"


@pytest.mark.parametrize(
  "images, masks",
  [
    ("train2017", "stuffthingmaps/train2017"),
    ("images/train2017", "annotations/train2017"),
    ("images/train2017", "annotations/stuffthingmaps/train2017"),
    ("images", "annotations/train2017_semantic"),
    ("train2017_images", "train2017_semantic"),
  ],
)
def test_coco_finds_its_folders_and_classes(images, masks, tmp_path):
  for i, level in enumerate((0, 1, 3, 255)):
    put(tmp_path / images / f"{i:012}.jpg", kind="JPEG")
    put(tmp_path / masks / f"{i:012}.png", value=level)
  put(tmp_path / images / "999.jpg", kind="JPEG")  # of another split, or without a mask
  source = opened("coco_masks", tmp_path, "train2017")
  assert source.num_classes == 0 and len(source) == (4 if images == "images" else 5)
  (tmp_path / "labels.txt").write_text(LABELS)
  source = opened("coco_masks", tmp_path, "train2017[:4]" if images == "images" else "train2017")
  assert source.class_names == ("person", "bicycle", "wood")
  assert [WHOLE(None, source[i])["mask"][0, 0] for i in range(4)] == [0, 1, 2, 255]
  if images != "images":
    with pytest.raises(DecodeError, match="it has no mask .*999.png"):
      source[4]
  with pytest.raises(ValueError, match="has no split 'val2017'"):
    opened("coco_masks", tmp_path, "val2017")


@pytest.mark.parametrize(
  "name, text",
  [
    ("labels.txt", "1: person\n3: wood\n"),
    ("semantic_classes.json", json.dumps({"0": "unlabeled", "1": "person", "3": "wood"})),
    ("annotations/categories.json", json.dumps([{"id": 3, "name": "wood"}, {"id": 1, "name": "person"}])),
    ("categories.json", json.dumps({"categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "wood"}]})),
  ],
)
def test_coco_masks_hold_ids_unless_the_labels_begin_with_unlabeled(name, text, tmp_path):
  for i, level in enumerate((1, 3, 255, 2)):
    put(tmp_path / "val" / f"{i}.jpg", kind="JPEG")
    put(tmp_path / "val_semantic" / f"{i}.png", value=level)
  (tmp_path / "annotations").mkdir()
  (tmp_path / name).write_text(text)
  source = opened("coco_masks", tmp_path, "val")
  assert source.class_names == ("person", "wood")
  assert [WHOLE(None, source[i])["mask"][0, 0] for i in range(3)] == [0, 1, 255]
  with pytest.raises(DecodeError, match="does not define: 2"):
    WHOLE(None, source[3])
  for wrong in ("{", "[1]", '{"a": "b"}'):
    (tmp_path / name).write_text(wrong)
    with pytest.raises(ValueError, match="does not list classes as expected"):
      opened("coco_masks", tmp_path, "val")


def test_coco_says_what_is_missing(tmp_path):
  with pytest.raises(ValueError, match="holds no folder of masks; the known names are stuffthingmaps"):
    opened("coco_masks", tmp_path)
  put(tmp_path / "train_semantic" / "7.png", value=0)
  with pytest.raises(ValueError, match="the image 7.jpg of split 'train' is in none of the folders"):
    opened("coco_masks", tmp_path)


def test_camvid_leaves_out_what_is_unlabelled(tmp_path):
  for split, levels in (("train", (0, 11, 10)), ("test", (5, 12))):
    for i, level in enumerate(levels):
      put(tmp_path / "CamVid" / split / f"{i}.png")
      put(tmp_path / "CamVid" / f"{split}annot" / f"{i}.png", value=level)
  source = opened("camvid", tmp_path)
  assert values(source) == [0, 255, 10] and source.class_names == tuple(CAMVID) and source.num_classes == 11
  test = opened("camvid", tmp_path / "CamVid", "test")
  with pytest.raises(DecodeError, match="does not define: 12"):
    WHOLE(None, test[1])
  with pytest.raises(ValueError, match="has no split 'val'"):
    opened("camvid", tmp_path, "val")


def test_parts_of_a_split_are_disjoint(tmp_path):
  write_voc(tmp_path)
  first, second = (opened("voc_masks", tmp_path, f"train{part}") for part in ("[:50%]", "[50%:]"))
  assert sorted(values(first) + values(second)) == [20, 255]


def read_all(source, size=96):
  """Reads every record; returns how often each class of the masks occurs, i64[256], and the bad records."""
  transform = host.image_mask(host.Frame(size))
  counts = np.zeros(256, np.int64)
  with pipeline.eval_batches(source, batch_size=32, transform=transform, max_bad_fraction=1.0) as batches:
    for batch in batches:
      for mask, (height, width), valid in zip(
        batch["mask"], batch["image_size"], batch["valid"], strict=True
      ):
        if valid:
          counts += np.bincount(mask[:height, :width].ravel(), minlength=256)
  return counts, batches.bad


def test_real_camvid(shared_data, tmp_path):
  for name in ("train_0001TP", "val_0016E5"):
    split = name.split("_")[0]
    with zipfile.ZipFile(shared_data / f"camvid/{name}.zip") as archive:
      for row in csv.DictReader(io.TextIOWrapper(archive.open("frames.csv"))):
        for member, folder in ((row["image"], split), (row["label"], f"{split}annot")):
          target = tmp_path / folder / member.split("/")[-1]
          target.parent.mkdir(exist_ok=True)
          target.write_bytes(archive.read(member))
  for split, size in (("train", 62), ("val", 101)):
    source = opened("camvid", tmp_path, split)
    counts, bad = read_all(source)
    assert len(source) == size and not bad
    assert counts[11:255].sum() == 0 and counts[255] > 0 and (counts[:11] > 0).sum() >= 10


def test_real_voc(shared_data, tmp_path):
  for split in ("train", "val"):
    for part, folder in (("images", "JPEGImages"), ("semantic", "SegmentationClass")):
      with zipfile.ZipFile(shared_data / f"voc2008/{split}_{part}.zip") as archive:
        archive.extractall(tmp_path / folder)
        stems = [name.rpartition("/")[2][:-4] for name in archive.namelist() if not name.endswith("/")]
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("\n".join(stems))
  (tmp_path / "SegmentationClass" / f"{stems[0]}.png").unlink()
  source = opened("voc_masks", tmp_path, "train+val")
  counts, bad = read_all(source)
  assert len(source) == 600 and (counts[:21] > 0).all() and counts[21:255].sum() == 0 and counts[255] > 0
  assert len(bad) == 1 and "it has no mask SegmentationClass" in next(iter(bad.values()))


def test_real_coco(shared_data, tmp_path):
  for split in ("train", "val"):
    for part in ("images", "semantic"):
      with zipfile.ZipFile(shared_data / f"coco256/{split}_{part}.zip") as archive:
        archive.extractall(tmp_path / f"{split}_{part}")
  shutil.copy(shared_data / "coco256/semantic_classes.json", tmp_path)
  names = json.loads((tmp_path / "semantic_classes.json").read_text())
  source = opened("coco_masks", tmp_path, "train")
  counts, bad = read_all(source)
  assert len(source) == 128 and len(bad) == 28 and source.num_classes == len(names) - 1
  assert counts[: source.num_classes].sum() > 0 and counts[source.num_classes : 255].sum() == 0
  first = next(i for i in range(128) if source.name(i).endswith("000000000009.jpg"))
  with Image.open(tmp_path / "train_semantic" / "000000000009.png") as image:
    stored = {names[str(value)] for value in np.unique(np.asarray(image)) if value}
  made = host.image_mask(host.Frame(400))(None, source[first])["mask"]
  assert {source.class_names[c] for c in np.unique(made) if c != 255} == stored
