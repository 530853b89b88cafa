"""The whole system: mine what moves, learn to segment it in single frames, look at the task, measure it."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")
pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")

from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check  # noqa: E402
from ssl_jax.run import prepare  # noqa: E402
from ssl_jax.run.evaluate import evaluate  # noqa: E402
from ssl_jax.run.train import train  # noqa: E402
from ssl_jax.view.request import PictureRequest  # noqa: E402
from ssl_jax.view.show import show  # noqa: E402
from tests.made_sprites import frame, truth, write_folder  # noqa: E402
from tests.recipes import evaluate_recipes, shrunk, train_recipes  # noqa: E402


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
  clips, output = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("mined")
  for seed in range(4):
    write_folder(clips / f"clip{seed}", 12, 5 - 10 * (seed % 2), 7 * seed)
  options = dict(data_dir=str(clips), split="train", test_split="", processes=1)
  prepare.mine(["motion", "frames=4", "size=80"], str(output), **options)
  return output


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
  """Frames with true masks of sprites that were not mined."""
  root = tmp_path_factory.mktemp("frames")
  for kind in ("images", "masks"):
    (root / "test" / kind).mkdir(parents=True)
  for number in range(8):
    Image.fromarray(frame(number, 5, 99)).save(root / "test" / "images" / f"{number}.png")
    mask = truth(number, 5).astype(np.uint8)
    Image.fromarray(mask).save(root / "test" / "masks" / f"{number}.png")
  (root / "classes.txt").write_text("background\nmoving\n")
  return root


def test_learn_draw_and_measure_what_moves(mined, frames, tmp_path):
  config = shrunk(train_recipes()["pretrain/watching_objects_move_cpu.py"], batch=8, size=32)
  config["data"] |= dict(name="motion", data_dir=str(mined), size=120, cache=True)
  config["method"] |= dict(threshold=0.3, dropout=0.0)
  config["augment"] |= dict(shift=6, photometric=False)
  config["optimizer"] |= dict(weight_decay=0.01, learning_rate=3e-3)
  config = check(TrainConfig, {**config, "epochs": 40.0, "log_every": 10})
  train(config, tmp_path)
  path = show(["task"], PictureRequest(config, output=str(tmp_path / "task.png"), images=3))
  picture = np.asarray(Image.open(path).convert("RGB"))
  assert picture.std() > 20 and picture.shape[1] > picture.shape[0] / 2
  measure = evaluate_recipes()["transfer/moving_objects.py"].__dict__
  data = dict(name="mask_folder", data_dir=str(frames), train_split="test", test_split="test")
  table = evaluate(check(EvaluateConfig, {**measure, "batch_size": 8, "data": data}), tmp_path)
  assert set(table) == {"untrained", "watching_objects_move"}
  found = {}
  for path in (tmp_path / "evaluations").glob("*/*.json"):
    protocol = json.loads(path.read_text())["protocol"]
    assert protocol["squashed"] and protocol["test_rows"] == 8
    found[path.stem.removeprefix("segmentation-")] = protocol["iou"]["moving"]
  assert found["watching_objects_move"] > 2 * found["untrained"]
