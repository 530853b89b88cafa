"""The prediction of sound as a measure: by hand, and from clips of synthetic textures to the result."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import tasks
from ssl_jax.abilities import SoundPredictor
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.mining import runner
from ssl_jax.run import prepare
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.train import train
from ssl_jax.tasks import task
from ssl_jax.tasks.backbone import encoder_only
from ssl_jax.tasks.sound import standard_error
from ssl_jax.view.request import PictureRequest
from ssl_jax.view.show import show
from tests.mining.made_textures import TEXTURES, write_texture_clip
from tests.recipes import evaluate_recipes, train_recipes

KEY = jax.random.key(0)
NONE: Any = None  # of a function that is not called
CLASSES = 4
LABELS = np.array([0, 0, 1, 1, 2, 3], np.int32)
CLIPS = np.array([7, 7, 7, 8, 8, 9], np.int32)
BITS = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0], [1, 0]], bool)


def records_of(grey: np.ndarray) -> task.TestRecords:
  """Test records whose images have these grey levels."""

  def batches(transform):
    count = len(grey)
    images = np.broadcast_to(grey[:, None, None, None], (count, 4, 4, 3)).astype(np.uint8)
    yield {
      "image": images,
      "label": LABELS,
      "bits": BITS,
      "clip_number": CLIPS,
      "valid": np.ones(count, bool),
      "index": np.arange(count, dtype=np.int32),
    }

  fields = ("image", "label", "bits", "clip_name")
  return task.TestRecords(batches, NONE, lambda index: {"bits": BITS[index]}, NONE, fields)


def examined(target: str, predict, dense, make_data, noise, mesh):
  protocol = {"crop": 4, "resize": 4, "interpolation": "bilinear"}
  data = make_data(noise(8, 0), noise(8, 1), CLASSES)
  data = data._replace(records=records_of(10 * np.arange(6)), protocol=protocol)
  method = encoder_only(dense.method.encode, {SoundPredictor: SoundPredictor(predict, target, NONE)})
  return tasks.make("sound").run(dense._replace(method=method), data, mesh, KEY)


@pytest.mark.parametrize("devices", [1, 8])
def test_clusters_are_scored_against_the_best_constant_and_a_guess(devices, dense, make_data, noise, mesh_of):
  guesses = jnp.array([0, 0, 1, 0, 0, 0])  # three of six are right

  def predict(params, model_state, images):
    place = jnp.round(images[:, 0, 0, 0] * 25.5).astype(jnp.int32)
    return jax.nn.one_hot(guesses[place], CLASSES)

  found = examined("clusters", predict, dense, make_data, noise, mesh_of(devices))
  assert found.scalars == pytest.approx({"accuracy": 3 / 6, "constant": 2 / 6, "chance": 1 / 4})
  right = np.array([1, 1, 1, 0, 0, 0])
  assert found.protocol["standard_error"]["accuracy"] == pytest.approx(standard_error(right, CLIPS))
  assert found.protocol["test_clips"] == 3 and found.protocol["test_rows"] == 6
  np.testing.assert_array_equal(found.predictions["prediction"], guesses)


def test_bits_are_scored_one_by_one(dense, make_data, noise, mesh_of):
  found = examined(
    "bits", lambda p, s, images: jnp.ones((len(images), 2)), dense, make_data, noise, mesh_of(1)
  )
  assert found.scalars == pytest.approx({"accuracy": 5 / 12, "constant": 9 / 12, "chance": 0.5})
  with pytest.raises(ValueError, match="predicts 3 bits of sound, but the test records have 2; use the data"):
    examined("bits", lambda p, s, images: jnp.ones((len(images), 3)), dense, make_data, noise, mesh_of(1))


def test_the_frames_of_a_clip_count_as_one_in_the_standard_error():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=200)
  alone = standard_error(scores, np.arange(200))
  assert alone == pytest.approx(scores.std(ddof=1) / np.sqrt(200))
  copies = standard_error(np.repeat(scores, 10), np.repeat(np.arange(200), 10))
  assert copies == pytest.approx(alone)
  assert np.isnan(standard_error(scores, np.zeros(200, int)))


def test_records_without_sound_are_refused(dense, make_data, noise, mesh_of):
  data = make_data(noise(8, 0), noise(8, 1), CLASSES)
  method = encoder_only(dense.method.encode, {SoundPredictor: SoundPredictor(NONE, "bits", NONE)})
  with pytest.raises(ValueError, match="task 'sound' needs 'bits' and 'clip_name' in every test record"):
    tasks.make("sound").run(dense._replace(method=method), data, mesh_of(1), KEY)


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
  """Mined clips of synthetic textures: five of each kind, of which one is held back."""
  root = tmp_path_factory.mktemp("textures")
  for split, count in (("train", 4), ("test", 1)):
    (root / "clips" / split).mkdir(parents=True)
    for kind in range(len(TEXTURES)):
      for number in range(count):
        path = root / "clips" / split / f"{kind}_{number}.mp4"
        write_texture_clip(path, kind, 100 * kind + number + (split == "test") * 50)
  mining = runner.Mining(
    "sounds",
    {"clusters": len(TEXTURES), "bits": 4, "frames": 8, "size": 80},
    str(root / "clips"),
    "train",
    "test",
  )
  runner.run(mining, root / "mined", processes=1)
  return root / "mined"


def recipe_of(mined, variant: str) -> TrainConfig:
  found = dict(vars(train_recipes()[f"pretrain/ambient_sound_cpu.py:{variant}"]))
  data = dict(vars(found["data"])) | {"data_dir": str(mined), "size": 48}
  small = {
    "data": data,
    "epochs": 12.0,
    "host": {"name": "image"} if variant == "clusters" else {"name": "image_bits", "bits": 4},
    "augment": {**found["augment"], "size": 44},
    "encoder": {"name": "resnet10", "width": 8, "stem": "small"},
    "checkpoint": dict(vars(found["checkpoint"])),
    "start": dict(vars(found["start"])),
  }
  return check(TrainConfig, found | small)


@pytest.mark.parametrize("variant", ["clusters", "bits"])
def test_the_sound_of_held_back_textures_is_predicted_from_their_pictures(variant, mined, tmp_path):
  train(recipe_of(mined, variant), tmp_path)
  config = evaluate_recipes()["transfer/sound.py"]
  table = evaluate(check(EvaluateConfig, dict(vars(config)) | {"data": {"size": 44}}), tmp_path)
  trained, untrained = (
    next(row["sound"] for name, row in table.items() if ("untrained" in name) == which)
    for which in (False, True)
  )
  assert trained["accuracy"] > trained["constant"] + 0.15
  assert trained["accuracy"] > untrained["accuracy"] + 0.15
  protocol = json.loads(next(tmp_path.glob("evaluations/*/sound-[!u]*.json")).read_text())["protocol"]
  assert protocol["test_clips"] == len(TEXTURES) and protocol["target"] == variant


def test_the_task_is_drawn(mined, tmp_path):
  request = PictureRequest(recipe_of(mined, "clusters"), output=str(tmp_path / "task.png"), images=3)
  picture = np.asarray(Image.open(show(["task"], request)).convert("RGB"))
  assert picture.std() > 20


def test_a_miner_needs_a_folder_of_clips(tmp_path):
  with pytest.raises(ValueError, match="`ssl-jax prepare sounds` needs --data_dir, the folder of the clips"):
    prepare.mine(["sounds"], str(tmp_path), data_dir="")
