"""Predictions of images and frames without labels, with and without learning, and continued after a stop."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

import ssl_jax
from ssl_jax.abilities import Classifier
from ssl_jax.apply import kinds
from ssl_jax.apply.rows import UNFINISHED
from ssl_jax.apply.tables import read_predictions
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.data import transforms
from ssl_jax.methods import MissingAbility
from ssl_jax.run.restore import restore
from ssl_jax.run.stop import Stopped
from tests.photos import saved_run, write_photos
from tests.recipes import save, shrunk, train_recipes

FEW = check(
  EvaluateConfig,
  recipe(
    EvaluateConfig,
    tasks=dict(
      standard=dict(task="ttt", mode="standard", steps=2, copies=2, learning_rate=0.05),
      online=dict(task="ttt", mode="online", steps=1, copies=2, learning_rate=0.05),
    ),
    augment=dict(name="none"),
  ),
)

ALONG = check(
  EvaluateConfig,
  recipe(
    EvaluateConfig,
    tasks=dict(ttt_video=dict(window=4, steps=1, copies=4, learning_rate=0.05)),
    augment=dict(name="scale_jitter", scale=(1.0, 1.0), flip=0.0),
  ),
)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
  """A classifier that can learn to tell rotations at test time."""
  config = check(TrainConfig, shrunk(train_recipes()["pretrain/joint.py:cifar10_cpu"], batch=8, size=16))
  return save(config, tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder = write_photos(tmp_path_factory.mktemp("photos"), each=2, classes=False)
  (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
  return folder


def predict(workdir, photos, output, **options):
  return ssl_jax.predict(workdir, str(photos), output=output, batch_size=8, **options)


@pytest.fixture(scope="module")
def plain(joint, photos, tmp_path_factory):
  return predict(joint, photos, tmp_path_factory.mktemp("plain"))


def test_every_photo_gets_the_probabilities_of_its_own_pixels(joint, photos, plain, tmp_path):
  assert plain.names.tolist() == sorted(path.name for path in photos.glob("*.jpg"))
  backbone = restore(joint).backbone
  crop = transforms.resize_center_crop(16)
  images = np.stack([crop(None, (photos / name).read_bytes()) for name in plain.names])
  logits = backbone.ability(Classifier, "a test").predict(*backbone.weights, images / np.float32(255))
  np.testing.assert_allclose(plain.probabilities, jax.nn.softmax(logits), atol=1e-5)


def test_the_table_is_read_again_and_tells_the_classes_and_the_protocol(joint, photos, tmp_path, capsys):
  found = predict(joint, photos, tmp_path)
  assert "1 of 7 images cannot be decoded" in capsys.readouterr().out
  again = predict(joint, photos, tmp_path)
  assert "predictions.csv is complete" in capsys.readouterr().out
  np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-6)
  assert again.class_names == found.class_names and again.names.tolist() == found.names.tolist()
  protocol = json.loads((tmp_path / "predictions.json").read_text())
  assert protocol["identity"]["crop"] == 16 and protocol["identity"]["adapt"] == "none"
  header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
  assert header.startswith("name,prediction,probability,p(0),p(1)")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "predictions.json"]


@pytest.mark.parametrize("adapt", ["standard", "online", "window"])
def test_learning_changes_the_predictions_and_keeps_those_of_the_trained_network(
  adapt, joint, photos, plain, tmp_path
):
  found = predict(joint, photos, tmp_path, adapt=adapt, config=FEW)
  assert found.names.tolist() == plain.names.tolist()
  assert found.milliseconds > 0 or adapt == "standard"  # there the eight devices need a single step
  np.testing.assert_allclose(found.frozen, plain.probabilities, atol=1e-4)
  assert np.isfinite(found.losses).all()
  moved = np.abs(found.probabilities - found.frozen).max(1)
  assert (moved > 1e-5).all()
  if adapt != "standard":
    assert moved[-1] > moved[0]  # what was learned is carried along


def test_what_was_learned_on_a_photo_does_not_depend_on_the_others(joint, photos, tmp_path):
  """In the form "standard"."""
  (tmp_path / "one").mkdir()
  (tmp_path / "one" / "apple00.jpg").write_bytes((photos / "apple00.jpg").read_bytes())
  found = [
    predict(joint, folder, tmp_path / f"out{i}", adapt="standard", config=FEW)
    for i, folder in enumerate((photos, tmp_path / "one"))
  ]
  np.testing.assert_allclose(found[0].probabilities[0], found[1].probabilities[0], atol=1e-5)


def test_learning_continues_where_it_stopped_with_the_same_results(joint, photos, tmp_path, monkeypatch):
  whole = predict(joint, photos, tmp_path / "whole", adapt="online", config=FEW)
  row, count = kinds.row_of_probabilities, []

  def counted(*args):
    count.append(1)
    if len(count) == 3:
      os.kill(os.getpid(), signal.SIGTERM)
    return row(*args)

  monkeypatch.setattr(kinds, "row_of_probabilities", counted)
  with pytest.raises(Stopped, match="stopped by SIGTERM after 3 of 6"):
    predict(joint, photos, tmp_path / "parts", adapt="online", config=FEW)
  again = predict(joint, photos, tmp_path / "parts", adapt="online", config=FEW)
  assert len(count) == 6
  np.testing.assert_array_equal(again.probabilities, whole.probabilities)
  assert not (tmp_path / "parts" / UNFINISHED).exists()


def test_the_frames_of_a_video_come_in_order_with_their_times(joint, tmp_path):
  frames = tmp_path / "clip"
  frames.mkdir()
  rng = np.random.default_rng(0)
  for i in range(12):
    Image.fromarray(rng.integers(0, 256, (24, 30, 3)).astype(np.uint8)).save(frames / f"{i:02}.png")
  (frames / "fps.txt").write_text("10")
  found = ssl_jax.predict(joint, output=tmp_path / "out", video=str(frames), batch_size=8)
  assert found.names.tolist() == [f"frame {i}" for i in range(12)]
  np.testing.assert_allclose(found.seconds, np.arange(12) / 10, atol=1e-6)
  as_images = ssl_jax.predict(joint, str(frames), output=tmp_path / "images", batch_size=8)
  np.testing.assert_allclose(found.probabilities, as_images.probabilities, atol=1e-5)
  np.testing.assert_allclose(read_predictions(tmp_path / "out").seconds, found.seconds, atol=1e-3)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
  """A segmenter that can learn to restore masked images at test time."""
  recipe = train_recipes()["pretrain/joint_segmentation.py:camvid"]
  config = check(TrainConfig, shrunk(recipe, batch=8, size=16))
  return save(config, tmp_path_factory.mktemp("segmenter"))


@pytest.mark.parametrize("adapt", ["none", "window"])
def test_a_segmenter_writes_a_map_and_a_picture_of_every_photo(adapt, segmenter, photos, tmp_path):
  options = {} if adapt == "none" else dict(adapt=adapt, config=ALONG)
  found = predict(segmenter, photos, tmp_path, **options)
  assert len(found.names) == 6 and found.class_names == tuple(map(str, range(10)))
  np.testing.assert_allclose(found.fractions.sum(1), 1, atol=1e-5)
  for i, name in enumerate(found.names):
    with Image.open(photos / name) as photo, Image.open(tmp_path / "maps" / f"{name[:-4]}.png") as classes:
      assert classes.size == photo.size and classes.mode == "P"
      share = np.bincount(np.asarray(classes).ravel(), minlength=10) / np.prod(photo.size)
    assert np.abs(share - found.fractions[i]).max() < 0.1  # resized
    assert (tmp_path / "pictures" / f"{name[:-4]}.jpg").exists()
  assert (found.changed is None) == (adapt == "none")
  again = predict(segmenter, photos, tmp_path, **options)
  np.testing.assert_allclose(again.fractions, found.fractions, atol=1e-5)


def test_a_film_of_a_segmented_video(segmenter, tmp_path):
  frames = tmp_path / "clip"
  frames.mkdir()
  for i in range(5):
    Image.fromarray(np.full((32, 48, 3), 50 * i, np.uint8)).save(frames / f"{i:02}.png")
  found = ssl_jax.predict(segmenter, output=tmp_path / "out", video=str(frames), batch_size=8)
  assert found.names.tolist() == [f"frame {i}" for i in range(5)]
  with Image.open(tmp_path / "out" / "film.gif") as film:
    assert film.n_frames == 5 and film.size[0] > film.size[1]


@pytest.mark.filterwarnings("ignore:The queue of")
def test_refusals(joint, photos, tmp_path_factory, tmp_path):
  for options, message in (
    (dict(adapt="onlin"), "--adapt=onlin: it is unknown; did you mean 'online'"),
    (dict(video="x.mp4"), "--video=x.mp4 and --data_dir=.* are both given"),
    (
      dict(adapt="online", config=check(EvaluateConfig, recipe(EvaluateConfig, tasks=dict(knn={})))),
      "--config has only the tasks knn; use a recipe with a task 'ttt'",
    ),
    (
      dict(
        adapt="online",
        config=check(EvaluateConfig, recipe(EvaluateConfig, tasks=dict(ttt=dict(threshold=0.5)))),
      ),
      "threshold=0.5, which predictions do not take",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      predict(joint, photos, tmp_path, **options)
  with pytest.raises(ValueError, match="--video=nothing.mp4 does not exist"):
    ssl_jax.predict(joint, output=tmp_path, video="nothing.mp4")
  with pytest.raises(MissingAbility, match="fine-tune it first"):
    predict(saved_run(tmp_path_factory.mktemp("moco")), photos, tmp_path)
