"""The whole system: transfer a pre-trained encoder to segmentation, resume, measure, look at the report."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.restore import restore
from ssl_jax.run.train import train
from ssl_jax.view.report import report
from tests.recipes import save, shrunk, train_recipes
from tests.tasks.masked_images import NAMES, painted

ENCODER = dict(name="resnet10", width=8, stem="small")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
  """A folder of images and masks; one image of the test split has no mask."""
  root = tmp_path_factory.mktemp("masks")
  for split, count, seed in (("train", 32, 0), ("test", 9, 1)):
    for kind in ("images", "masks"):
      (root / split / kind).mkdir(parents=True)
    for i, record in enumerate(painted(count, seed, sides=(24, 41))):
      Image.fromarray(record["image"]).save(root / split / "images" / f"{i}.png")
      Image.fromarray(record["mask"]).save(root / split / "masks" / f"{i}.png")
  (root / "test" / "masks" / "3.png").unlink()
  (root / "classes.txt").write_text("\n".join([*NAMES, "void"]))
  return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
  config = shrunk(train_recipes()["pretrain/moco_frames_cpu.py"], batch=32, size=32)
  return save(check(TrainConfig, config), tmp_path_factory.mktemp("moco"))


def transfer(pretrained, masks, **changes) -> TrainConfig:
  options = dict(
    method=dict(name="segmentation", channels=16),
    encoder=dict(**ENCODER, output_stride=4, dilate="all"),
    augment=dict(name="scale_jitter", views=1, size=32),
    optimizer=dict(learning_rate=0.05, warmup_epochs=1.0),
    data=dict(name="mask_folder", data_dir=str(masks), size=40, cache=True),
    host=dict(name="image_mask"),
    start=dict(workdir=str(pretrained)),
    batch_size=8,
    epochs=12.0,
    log_every=8,
  )
  return check(TrainConfig, recipe(**{**options, **changes}))


@pytest.fixture(scope="module")
def run(pretrained, masks, tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train(transfer(pretrained, masks), path)
  return path


@pytest.fixture(scope="module")
def table(run):
  config = recipe(
    EvaluateConfig,
    tasks=dict(segmentation={}, windows=dict(task="segmentation", window=24, short_side=24)),
    data=dict(test_split="test", max_bad_fraction=0.2),
    baselines=("untrained",),
    batch_size=8,
  )
  return evaluate(check(EvaluateConfig, config), run)


def test_the_transferred_network_segments(table):
  for task in ("segmentation", "windows"):
    assert table["segmentation"][task]["miou"] > max(0.4, table["untrained"][task]["miou"] + 0.15)
    assert list(table["segmentation"][task]) == ["miou", "pixel_accuracy", "mean_accuracy"]


def test_json_pictures_and_report(run, table):
  folder = run / "evaluations" / "step48"
  found = json.loads((folder / "segmentation-segmentation.json").read_text())
  assert set(found["protocol"]["iou"]) == set(NAMES)
  assert found["protocol"]["test_rows"] == 8  # of nine images, one has no mask
  for name in ("segmentation-segmentation", "segmentation-segmentation-confusion", "windows-segmentation"):
    with Image.open(folder / f"{name}.png") as picture:
      assert picture.width > 300 and len(picture.getcolors(2**24) or ()) > 50
  page = report([run], run / "page.html").read_text()
  for caption in ("segmentation, segmentation", "segmentation, segmentation, confusion"):
    assert caption in page
  assert page.count("data:image/") >= 4


def test_a_missing_mask_is_named_and_too_many_stop(run, caplog, pretrained, masks):
  config = recipe(EvaluateConfig, tasks=dict(segmentation={}), data=dict(test_split="test"), batch_size=8)
  with pytest.raises(ValueError, match="1 of 9 images cannot be decoded, 0 are allowed.*\n.*3.png"):
    evaluate(check(EvaluateConfig, config), run)
  assert "3.png" in caplog.text


def test_a_frozen_encoder_is_taken_with_its_statistics(pretrained, masks, tmp_path):
  method = dict(name="segmentation", head="linear", frozen=True)
  train(transfer(pretrained, masks, method=method, epochs=2.0), tmp_path)
  mesh = parallel.make_mesh()
  source, found = (restore(path, mesh).backbone.weights for path in (pretrained, tmp_path))
  jax.tree.map(
    np.testing.assert_array_equal, found.model_state["frozen"]["encoder"], source.params["encoder"]
  )
  jax.tree.map(np.testing.assert_array_equal, found.model_state["encoder"], source.model_state["encoder"])
  assert set(found.params) == {"head"}
