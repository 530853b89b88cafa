"""The whole system: mine tracks, learn from them, look at the task, find patches of held-back tracks."""

import json

import numpy as np
import pytest
from PIL import Image

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check  # noqa: E402
from ssl_jax.run import prepare  # noqa: E402
from ssl_jax.run.evaluate import evaluate  # noqa: E402
from ssl_jax.run.train import train  # noqa: E402
from ssl_jax.view.request import PictureRequest  # noqa: E402
from ssl_jax.view.show import show  # noqa: E402
from tests.recipes import evaluate_recipes, shrunk, train_recipes  # noqa: E402

BASELINES = {"raw pixels", "colour histogram", "colour statistics", "untrained"}


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
  """Eight clips: a square of one texture moves over another."""
  root = tmp_path_factory.mktemp("clips")
  for clip in range(8):
    rng = np.random.default_rng(clip)
    draw = lambda *shape, rng=rng: cv2.GaussianBlur(
      rng.integers(0, 256, (*shape, 3)).astype(np.uint8), (0, 0), 2
    )
    background, sprite = 60 + draw(96, 180) // 2, draw(48, 48)
    (root / f"clip{clip}").mkdir()
    for number in range(16):
      frame = background.copy()
      frame[24:72, 10 + 6 * number : 58 + 6 * number] = sprite
      Image.fromarray(frame).save(root / f"clip{clip}" / f"{number:02}.png")
  output = tmp_path_factory.mktemp("mined")
  options = ["tracks", "frames=6", "count=4", "size=40", "least=0.05"]
  prepare.mine(options, str(output), data_dir=str(root), split="train[:5]", test_split="train[5:]")
  return output


def test_learn_draw_and_measure_what_was_mined(mined, tmp_path):
  config = shrunk(train_recipes()["pretrain/tracking_cpu.py"], batch=8, size=32)
  config["data"] |= dict(name="tracks", data_dir=str(mined), cache=True)
  config = check(TrainConfig, {**config, "epochs": 6.0, "log_every": 5})
  train(config, tmp_path)
  path = show(["task"], PictureRequest(config, output=str(tmp_path / "task.png"), images=3))
  assert np.asarray(Image.open(path).convert("RGB")).std() > 20
  measure = {**evaluate_recipes()["transfer/same_track.py"].__dict__}
  measure["tasks"] = {"same_track": {"candidates": 6}}
  table = evaluate(check(EvaluateConfig, measure), tmp_path)
  assert set(table) > BASELINES and len(table) == 5
  for scores in table.values():
    assert next(iter(scores["same_track"])) == "top1"
    assert all(0 <= value <= 1 for value in scores["same_track"].values())
  assert table["colour histogram"]["same_track"]["other_clips_top1"] > 0.8
  results = list((tmp_path / "evaluations").glob("*/*.json"))
  assert len(results) == 5
  for result in results:
    protocol = json.loads(result.read_text())["protocol"]
    assert protocol["test_clips"] == 3 and np.isfinite(protocol["standard_error"]["top1"])
    assert result.with_suffix(".png").exists()
