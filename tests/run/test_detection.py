"""The whole system: transfer a pre-trained encoder to detection, resume, measure, look at the report."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.data import instance_masks
from ssl_jax.data.objects import of_record
from ssl_jax.models import frozen_parts
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.restore import restore
from ssl_jax.run.train import train
from ssl_jax.tasks import detection_scores
from ssl_jax.view.report import report
from tests.recipes import save, shrunk, train_recipes
from tests.tasks.boxed_images import NAMES, drawn
from tests.tasks.reference_scores import reference_coco

SMALL = dict(
  channels=16, hidden=32, anchors=64, rois=16, before=(64, 64), proposals=(32, 16), anchor_scale=0.25
)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
  """A folder in COCO's layout with rectangles of three colours."""
  root = tmp_path_factory.mktemp("boxes")
  for split, count, seed in (("train", 32, 0), ("val", 9, 1)):
    (root / split).mkdir()
    images, annotations = [], []
    for i, record in enumerate(drawn(count, seed)):
      (root / split / f"{i}.png").write_bytes(record["image"])
      width, height = Image.open(io.BytesIO(record["image"])).size
      images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
      objects = of_record(record)
      for box, number, mask in zip(objects.boxes.tolist(), objects.classes.tolist(), objects.masks):
        x, y, right, bottom = box
        annotations.append(
          {
            "id": len(annotations) + 1,
            "image_id": i,
            "category_id": number + 1,
            "bbox": [x, y, right - x, bottom - y],
            "segmentation": instance_masks.to_coco(mask),
          }
        )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    stored = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}_instances.json").write_text(json.dumps(stored))
  return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
  config = shrunk(train_recipes()["pretrain/moco_frames_cpu.py"], batch=32, size=32)
  config["encoder"]["stem"] = "imagenet"
  return save(check(TrainConfig, config), tmp_path_factory.mktemp("moco"))


def transfer(pretrained, boxes, **changes) -> TrainConfig:
  options = dict(
    method=dict(name="detection", kind="fpn", masks=True, **SMALL, **changes.pop("method", {})),
    encoder=dict(name="resnet10", width=8),
    augment=dict(name="resize_shorter", views=1, size=64, shorter=(40, 44), longest=64),
    optimizer=dict(learning_rate=0.02, warmup_epochs=1.0, clip_norm=10.0, weight_decay_on="no_norms"),
    data=dict(name="coco", data_dir=str(boxes), size=64, cache=True),
    host=dict(name="image_instances", max_boxes=4, mask_size=28),
    start=dict(workdir=str(pretrained)),
    batch_size=8,
    epochs=48.0,
    log_every=20,
  )
  return check(TrainConfig, recipe(**{**options, **changes}))


def measured(**changes) -> EvaluateConfig:
  options = dict(
    tasks=dict(detection=dict(short_side=44, longest=64)),
    data=dict(test_split="val"),
    baselines=("untrained",),
    batch_size=8,
  )
  return check(EvaluateConfig, recipe(EvaluateConfig, **{**options, **changes}))


@pytest.fixture(scope="module")
def run(pretrained, boxes, tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train(transfer(pretrained, boxes), path)
  return path


@pytest.fixture(scope="module")
def table(run):
  return evaluate(measured(), run)


def test_the_trained_network_detects(table):
  scores, untrained = table["detection"]["detection"], table["untrained"]["detection"]
  assert scores["coco_box_ap50"] > 0.2 > 0.05 > untrained["coco_box_ap50"]
  assert scores["coco_mask_ap50"] > 0.1


def test_the_result_says_how_it_was_measured_and_is_drawn(run, table):
  folder = run / "evaluations" / "step192"
  stored = json.loads((folder / "detection-detection.json").read_text())
  assert stored["scalars"] == table["detection"]["detection"]
  assert stored["protocol"]["metric"] == "coco" and stored["protocol"]["short_side"] == 44
  assert set(stored["protocol"]["by_class"]["masks"]) == set(NAMES)
  assert np.asarray(Image.open(folder / "detection-detection.png")).std() > 20


def test_a_network_is_measured_the_same_way_twice_and_with_precise_statistics(run, table, capfd):
  precise = evaluate(measured(precise_batches=3, baselines=()), run)["detection"]["detection"]
  assert precise != table["detection"]["detection"] and precise["coco_box_ap50"] > 0.1
  stored = json.loads((run / "evaluations" / "step192" / "detection-detection.json").read_text())
  assert stored["protocol"]["precise_batches"] == 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_scores_of_what_was_detected_are_those_of_pycocotools(run, monkeypatch):
  seen, score = [], detection_scores.coco_scores
  monkeypatch.setattr(
    detection_scores, "coco_scores", lambda *args, **kind: seen.append(args) or score(*args, **kind)
  )
  scalars = evaluate(measured(baselines=()), run)["detection"]["detection"]
  truths, found, count = seen[0]
  assert sum(len(one.boxes) for one in found) > 20
  for kind in ("box", "mask"):
    _, stats = reference_coco(truths, found, count, kind)
    mine = [scalars[f"coco_{kind}_ap{end}"] for end in ("", "50", "75")]
    np.testing.assert_allclose(mine, stats[:3], atol=1e-6)


def test_a_partly_frozen_encoder_starts_from_the_other_run_and_stays(pretrained, boxes, tmp_path):
  config = transfer(
    pretrained,
    boxes,
    method=dict(batch_norm="frozen", freeze=2),
    epochs=0.25,
    optimizer=dict(learning_rate=0.02, clip_norm=1.0),
  )
  train(config, tmp_path)
  before, after = restore(pretrained).backbone.weights, restore(tmp_path).backbone.weights
  whole = frozen_parts.whole(*after)
  for name in ("conv_stem", "stage1_block1"):
    old, new = before.params["encoder"][name], whole.params["encoder"][name]
    jax.tree.map(np.testing.assert_array_equal, old, new)
  old, new = (tree["encoder"]["stage2_block1"]["Conv_0"]["kernel"] for tree in (before.params, whole.params))
  assert 0 < float(abs(old - new).max()) < 1.0
  jax.tree.map(np.testing.assert_array_equal, before.model_state["encoder"], whole.model_state["encoder"])


def test_detections_are_on_the_report_page(run, table, tmp_path):
  text = report([run], tmp_path / "page.html").read_text()
  assert "coco box ap50" in text and "detection, detection" in text and text.count("data:image/") >= 2
