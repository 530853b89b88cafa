import io

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax import tasks
from ssl_jax.abilities import ObjectDetector
from ssl_jax.data.objects import of_record
from ssl_jax.methods import MissingAbility
from ssl_jax.tasks import detection_scores
from ssl_jax.tasks.detection_scores import Detected
from ssl_jax.tasks.pixel_baseline import pixels
from tests.tasks.boxed_images import NAMES, by_colour, data_of, drawn

RECORDS = drawn(11, 0)


def measure(data, mesh, backbone=None, **options):
  return tasks.make("detection", **options).run(backbone or by_colour(), data, mesh, jax.random.key(0))


def test_boxes_that_are_right_score_one_and_moved_ones_as_coco_says(mesh_of):
  """Masks that fill their boxes are not those of objects under others, so their score is below 1."""
  visible = [record for record in RECORDS if _apart(record)]
  right = measure(data_of(visible), mesh_of(1))
  assert list(right.scalars)[0] == "coco_box_ap" and right.scalars["coco_box_ap"] == pytest.approx(1)
  assert right.scalars["coco_mask_ap"] == pytest.approx(1)
  # Moved by 0.2 of the width, a box has an overlap of 0.8 / 1.2 = 0.667: 0.5, 0.55, 0.6 and 0.65 of ten pass.
  moved = measure(data_of(visible), mesh_of(1), by_colour(moved=0.2))
  assert moved.scalars["coco_box_ap"] == pytest.approx(0.4)
  assert moved.scalars["coco_box_ap50"] == pytest.approx(1) and moved.scalars["coco_box_ap75"] == 0
  assert moved.protocol["by_class"]["boxes"] == pytest.approx(dict.fromkeys(NAMES, 0.4))


def _apart(record) -> bool:
  objects = of_record(record)
  return np.allclose(objects.area, np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1))


@pytest.mark.parametrize("metric, form", [("voc_11_point", "11-point"), ("voc_area", "area")])
def test_scores_are_those_of_the_detections_of_every_image(metric, form, mesh_of):
  """The oracle detects every image alone, at full size."""
  backbone, found = by_colour(moved=0.2), []
  predict = backbone.method.abilities[ObjectDetector].predict
  for record in RECORDS:
    image = np.asarray(Image.open(io.BytesIO(record["image"])), np.float32)[None] / 255
    one = jax.device_get(predict({}, {}, image, np.array([image.shape[1:3]]))).detections
    kept = one.valid[0]
    found.append(Detected(one.boxes[0, kept], one.classes[0, kept], one.scores[0, kept]))
  expected = detection_scores.voc_scores([of_record(record) for record in RECORDS], found, 3, form=form)
  result = measure(data_of(RECORDS), mesh_of(1), backbone, metric=metric)
  boxes = {name: value for name, value in result.scalars.items() if name.startswith("voc")}
  assert boxes == pytest.approx(expected.scalars())
  assert result.protocol["objects"] == sum(len(record["boxes"]) for record in RECORDS)


def test_devices_do_not_matter(mesh_of):
  one, eight = (measure(data_of(RECORDS), mesh_of(n), by_colour(moved=0.1)) for n in (1, 8))
  assert one.scalars == eight.scalars and one.protocol == eight.protocol


def test_boxes_of_resized_images_are_those_at_full_size(mesh_of):
  """At twice the size the extents of the colours are found to half a pixel."""
  result = measure(data_of(RECORDS), mesh_of(1), short_side=100, longest=150)
  assert result.scalars["coco_box_ap50"] == pytest.approx(1) and result.scalars["coco_box_ap75"] > 0.9
  height, width = result.protocol["canvas"]
  assert max(height, width) <= 150 and min(height, width) >= 100


def test_without_masks_only_boxes_are_measured(mesh_of):
  for data, backbone, options in (
    (data_of(drawn(4, 1, masks=False)), by_colour(), {}),
    (data_of(RECORDS), by_colour(masks=False), {}),
    (data_of(RECORDS), by_colour(), dict(masks=False)),
  ):
    scalars = measure(data, mesh_of(1), backbone, **options).scalars
    assert "coco_box_ap" in scalars and not any("mask" in name for name in scalars)


def test_classes_are_compared_by_name(mesh_of):
  renamed = measure(data_of(RECORDS), mesh_of(1), by_colour(class_names=("red", "green", "blue")))
  swapped = measure(data_of(RECORDS), mesh_of(1), by_colour(class_names=("green", "red", "blue")))
  assert renamed.protocol["by_class"]["boxes"]["blue"] == swapped.protocol["by_class"]["boxes"]["blue"]
  assert swapped.protocol["by_class"]["boxes"]["red"] < 0.1 < renamed.protocol["by_class"]["boxes"]["red"]
  with pytest.raises(ValueError, match="the test boxes have classes other than those of .*: blue"):
    measure(data_of(RECORDS), mesh_of(1), by_colour(class_names=("green", "red", "yellow")))


def test_the_picture_shows_images_of_the_whole_split(mesh_of, tmp_path):
  result = measure(data_of(drawn(9, 2, masks=False)), mesh_of(1))
  assert result.plot is not None
  result.plot(tmp_path / "shown", "title")
  picture = np.asarray(Image.open(tmp_path / "shown.png").convert("RGB")).astype(int)
  assert picture.shape[0] > 300 and picture.shape[1] > 300
  red, green, blue = np.moveaxis(picture, -1, 0)
  assert ((red > 200) & (green < 60) & (blue < 60)).sum() > 500  # the red rectangles


def test_bad_options_and_data_are_refused(mesh_of):
  with pytest.raises(ValueError, match="detection.short_side is -1; use a number of pixels"):
    tasks.make("detection", short_side=-1)
  with pytest.raises(ValueError, match="rounded is for VOC's metrics"):
    tasks.make("detection", rounded=True)
  with pytest.raises(ValueError, match="config.tasks.detection.*metric.*'voc07'.*voc_11_point"):
    tasks.make("detection", metric="voc07")
  with pytest.raises(MissingAbility, match="train one with configs/transfer/detection.py"):
    measure(data_of(RECORDS), mesh_of(1), pixels())
  without = [{"image": record["image"], "label": 0} for record in RECORDS]
  with pytest.raises(ValueError, match="needs the boxes of every test image, but the data has only image"):
    measure(data_of(without), mesh_of(1))
  with pytest.raises(ValueError, match="distinguishes 3 classes, but 2 are named"):
    measure(data_of(RECORDS), mesh_of(1), by_colour(class_names=("red", "green")))
