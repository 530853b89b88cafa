"""The whole system: mine tuples of clips, learn their order, look at the task, measure on held-back clips."""

import json

import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.run import prepare
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.train import train
from ssl_jax.view.request import PictureRequest
from ssl_jax.view.show import show
from tests.recipes import evaluate_recipes, shrunk, train_recipes

SPANS = ["span=8", "gap=3", "count=8"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Eleven folders of frames: a bright square moves over grey, in each clip elsewhere."""
  root = tmp_path_factory.mktemp("clips")
  for clip in range(11):
    (root / f"clip{clip}").mkdir()
    for number in range(24):
      frame = np.full((40, 48, 3), 100, np.uint8)
      frame[2 * clip : 2 * clip + 12, number : number + 12] = 12 * clip + 130
      Image.fromarray(frame).save(root / f"clip{clip}" / f"{number}.png")
  return root


@pytest.fixture(scope="module")
def mined(clips, tmp_path_factory):
  output = tmp_path_factory.mktemp("mined")
  prepare.mine(
    ["tuples", *SPANS], str(output), data_dir=str(clips), split="train[:8]", test_split="train[8:]"
  )
  return output


def small(variant: str, **data) -> TrainConfig:
  config = shrunk(train_recipes()[f"pretrain/shuffle_and_learn_cpu.py:{variant}"], batch=8, size=32)
  config["data"] |= data
  return check(TrainConfig, {**config, "epochs": 4.0, "log_every": 5})


def test_learn_draw_and_measure_what_was_mined(mined, tmp_path):
  config = small("mined", name="tuples", data_dir=str(mined), cache=True)
  train(config, tmp_path)
  path = show(["task"], PictureRequest(config, output=str(tmp_path / "task.png"), images=3))
  assert np.asarray(Image.open(path).convert("RGB")).std() > 20
  table = evaluate(evaluate_recipes()["transfer/order.py"], tmp_path)
  assert set(table) == {"untrained", *table} and len(table) == 2
  for scores in table.values():
    assert 0 <= scores["pretext"]["balanced_accuracy"] <= 1
    assert next(iter(scores["pretext"])) == "balanced_accuracy"
  protocols = [
    json.loads(path.read_text())["protocol"] for path in (tmp_path / "evaluations").glob("*/*.json")
  ]
  assert len(protocols) == 2
  for protocol in protocols:
    assert protocol["test_rows"] <= 3 * 8 and protocol["test_split"] == "test"
    assert np.isfinite(protocol["standard_error"]["balanced_accuracy"])


def test_learn_and_measure_on_clips_themselves(clips, tmp_path):
  config = small("live", name="video_folder", data_dir=str(clips), split="train[:8]")
  options = {**config.host, "step": 3.0}
  config = check(TrainConfig, {**config.__dict__, "host": options})
  train(config, tmp_path)
  measure = {**evaluate_recipes()["transfer/order.py"].__dict__, "baselines": ()}
  measure["data"] = dict(test_split="train[8:]")
  table = evaluate(check(EvaluateConfig, measure), tmp_path)
  assert 0 <= table.popitem()[1]["pretext"]["balanced_accuracy"] <= 1
