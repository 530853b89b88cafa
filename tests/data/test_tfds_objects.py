"""Boxes in TFDS data sets: voc and coco by name, and any sequence with a box."""

from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data import host, sources
from ssl_jax.data.tfds_objects import find_objects

from .conftest import encoded, smooth
from .written_tfds import write

HEIGHT, WIDTH = 30, 40
IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
BOX = tfds.features.BBoxFeature()
VOC = tfds.features.ClassLabel(names=["aeroplane", "dog", "person"])


def box(x1, y1, x2, y2):
  return tfds.features.BBox(ymin=y1 / HEIGHT, xmin=x1 / WIDTH, ymax=y2 / HEIGHT, xmax=x2 / WIDTH)


def sequence(**parts):
  return tfds.features.Sequence(parts)


def test_voc_begins_at_pixel_one_and_knows_difficult_objects(tmp_path):
  pose = tfds.features.ClassLabel(names=["frontal", "rear"])
  objects = sequence(pose=pose, label=VOC, bbox=BOX, is_truncated=np.bool_, is_difficult=np.bool_)
  features = {"image": IMAGE, "objects": objects, "labels": tfds.features.Sequence(VOC)}
  rows = [
    {"pose": 1, "label": k, "bbox": b, "is_truncated": True, "is_difficult": k == 2}
    for k, b in ((1, box(1, 1, 10, 20)), (2, box(5, 6, 40, 30)))
  ]
  examples = [
    {"image": encoded(smooth(HEIGHT, WIDTH)), "objects": rows, "labels": [1, 2]},
    {"image": encoded(smooth(HEIGHT, WIDTH, 1)), "objects": [], "labels": []},
  ]
  source = write(tmp_path, "voc", features, examples)
  assert source.class_names == ("aeroplane", "dog", "person") and source.num_classes == 3
  full, empty = sorted((source[i] for i in range(2)), key=lambda record: -len(record["boxes"]))
  np.testing.assert_allclose(full["boxes"], [[0, 0, 10, 20], [4, 5, 40, 30]], atol=1e-4)
  assert full["boxes_class"].tolist() == [1, 2] and full["boxes_difficult"].tolist() == [False, True]
  assert full["label"] == -1 and not full["boxes_crowd"].any() and len(empty["boxes"]) == 0
  np.testing.assert_allclose(full["boxes_area"], [200, 900], rtol=1e-4)
  assert set(source.fields) == set(full)
  made = host.image_boxes(host.Frame(40), max_boxes=4)(None, full)
  assert made["boxes_valid"].tolist() == [True, True, False, False]
  assert made["boxes_difficult"].tolist() == [False, True, False, False]


def test_coco_knows_crowds_and_areas_and_drops_what_is_empty(tmp_path):
  objects = sequence(id=np.int64, area=np.int64, bbox=BOX, label=VOC, is_crowd=np.bool_)
  features = {"image": IMAGE, "image/id": np.int64, "objects": objects}
  rows = [
    {"id": 3, "area": 77, "bbox": box(0, 0, 10, 20), "label": 2, "is_crowd": True},
    {"id": 4, "area": 0, "bbox": box(5, 6, 5, 30), "label": 1, "is_crowd": False},
    {"id": 5, "area": 99, "bbox": box(5, 6, 15, 30), "label": 0, "is_crowd": False},
  ]
  examples = [{"image": encoded(smooth(HEIGHT, WIDTH)), "image/id": 9, "objects": rows}]
  record = write(tmp_path, "coco", features, examples)[0]
  np.testing.assert_allclose(record["boxes"], [[0, 0, 10, 20], [5, 6, 15, 30]], atol=1e-4)
  assert record["boxes_class"].tolist() == [2, 0] and record["boxes_crowd"].tolist() == [True, False]
  assert record["boxes_area"].tolist() == [77, 99]


def test_objects_without_a_class_have_that_of_the_image_or_one(tmp_path):
  objects = sequence(bbox=BOX)
  rows = [{"bbox": box(0, 0, 10, 20)}]
  image = encoded(smooth(HEIGHT, WIDTH))
  faces = write(tmp_path, "faces", {"image": IMAGE, "faces": objects}, [{"image": image, "faces": rows}])
  assert faces.class_names == ("faces",) and faces[0]["boxes_class"].tolist() == [0]
  features = {"image": IMAGE, "label": VOC, "objects": objects}
  dogs = write(tmp_path, "dogs", features, [{"image": image, "objects": rows, "label": 2}])
  assert dogs.class_names == tuple(VOC.names) and dogs[0]["boxes_class"].tolist() == [2]
  assert dogs[0]["label"] == 2
  assert sources.make("sample", split="test").fields == ("image", "label")


def test_the_features_that_are_objects():
  found = lambda **features: find_objects("own", features, "label" if "label" in features else "")
  by_type = found(image=IMAGE, things=sequence(where=BOX, type=VOC))
  assert by_type is not None and by_type[:2] == ("things/where", "things/type")
  assert found(image=IMAGE, bbox=BOX) is None  # one box an image
  assert found(image=IMAGE, boxes=tfds.features.Sequence(BOX)) is None
  assert found(image=IMAGE, poses=sequence(label=VOC)) is None
  other = tfds.features.BBoxFeature(bbox_format="YXYX")
  assert found(image=IMAGE, things=sequence(bbox=other, label=VOC)) is None
  scene = tfds.features.ClassLabel(names=["indoors", "outdoors"])
  assert found(image=IMAGE, label=scene, things=sequence(bbox=BOX, label=VOC)) is None


@pytest.mark.parametrize("name", ["voc/2007", "coco/2017"])
def test_the_features_of_tfds_own_builders_are_found(name, tmp_path):
  try:
    builder: Any = tfds.builder(name, data_dir=str(tmp_path))
  except ImportError as error:
    pytest.skip(f"TFDS cannot make {name} without a package: {error}")
  found = find_objects(builder.info.name, dict(builder.info.features.items()), "")
  assert found is not None and found.boxes == "objects/bbox" and found.classes == "objects/label"
  assert bool(found.difficult) == name.startswith("voc") and bool(found.crowd) == name.startswith("coco")
  assert len(found.names) == (20 if name.startswith("voc") else 80) and found.first_pixel == float(
    "voc" in name
  )
