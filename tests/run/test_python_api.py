"""ssl_jax as a library: own data, callbacks, online scores, the best checkpoint, and a restored network."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import ssl_jax
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, OnlineConfig
from ssl_jax.data import transforms
from ssl_jax.data.synthetic import render_stripes
from ssl_jax.methods import MissingAbility
from ssl_jax.run.array_batches import apply_in_batches
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.stop import Stopped
from tests.photos import saved_run, tiny

pytestmark = pytest.mark.filterwarnings("ignore:The queue of")
STEPS = 8


class Stripes:
  """A data set of the user's own: striped images with their classes."""

  def __init__(self, count: int, first: int = 0):
    self.count, self.first = count, first

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return {"image": render_stripes(self.first + index, 16), "label": (self.first + index) % 10}


OWN = {"train": Stripes(128), "test": Stripes(64, 1000)}


def config(**changes):
  online = OnlineConfig(every_epochs=0.5, test_split="test", options={"k": 5})
  log = dict(log_every=2, epochs=2.0, online=online)
  return dataclasses.replace(tiny(), **{**log, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(folder, rows that the callback got, last state) of a run on OWN."""
  workdir, rows = tmp_path_factory.mktemp("own"), []
  state = ssl_jax.train(config(), workdir, source=OWN, callbacks=[rows.append])
  return workdir, rows, state


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_callback_gets_every_row_of_the_files(trained):
  workdir, rows, _ = trained
  metrics, scores = (lines(workdir / f"{name}.jsonl") for name in ("metrics", "online"))
  assert [row["step"] for row in metrics] == [row["step"] for row in scores] == [2, 4, 6, 8]
  assert [row for row in rows if "loss" in row] == metrics
  assert [row for row in rows if "knn_top1" in row] == scores and len(rows) == 8


def test_an_online_score_is_that_of_an_evaluation(trained):
  workdir, _, _ = trained
  measure = recipe(EvaluateConfig, tasks=dict(knn=dict(k=5)), batch_size=64)
  table = ssl_jax.evaluate(measure, workdir, source=OWN)
  assert table["moco"]["knn"]["top1"] == lines(workdir / "online.jsonl")[-1]["knn_top1"]
  assert table["moco"]["knn"]["top1"] > 0.2  # ten classes


def test_the_best_checkpoint_is_kept(trained):
  workdir, _, _ = trained
  scores = lines(workdir / "online.jsonl")
  best = max(scores, key=lambda row: (row["knn_top1"], -row["step"]))
  assert ssl_jax.restore(workdir / "best").step == best["step"]


def test_scores_do_not_change_what_is_trained_and_data_given_by_name_are_the_same(trained, tmp_path):
  _, _, state = trained
  plain = dataclasses.replace(tiny().data, name="tests.run.test_python_api:make_stripes")
  other = ssl_jax.train(config(online=OnlineConfig(), data=plain), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, *(jax.device_get(s.params) for s in (state, other)))
  assert not (tmp_path / "best").exists() and not (tmp_path / "online.jsonl").exists()


def make_stripes(split):
  return OWN[split]


def test_a_run_that_was_stopped_ends_with_the_same_bits_and_the_same_best(trained, tmp_path):
  def stop(row):
    if row["step"] == 4:
      raise Stopped("by the callback")

  often = dataclasses.replace(tiny().checkpoint, every_steps=3)
  with pytest.raises(Stopped, match="by the callback"):
    ssl_jax.train(config(checkpoint=often), tmp_path, source=OWN, callbacks=[stop])
  with pytest.raises(ValueError, match="some of the records have another content"):
    ssl_jax.train(config(checkpoint=often), tmp_path, source={**OWN, "train": Stripes(128, 20)})
  state = ssl_jax.train(config(checkpoint=often), tmp_path, source=OWN)
  jax.tree.map(np.testing.assert_array_equal, *(jax.device_get(s.params) for s in (state, trained[2])))
  assert lines(tmp_path / "online.jsonl") == lines(trained[0] / "online.jsonl")
  with Checkpoints(tmp_path / "best") as mine, Checkpoints(trained[0] / "best") as theirs:
    assert mine.steps()[-1] == theirs.steps()[-1]  # Orbax deletes the one before when it saves again


def test_data_that_were_passed_must_be_passed_again(trained):
  measure = recipe(EvaluateConfig, tasks=dict(knn={}), batch_size=64)
  with pytest.raises(ValueError, match="pass `source` here too"):
    ssl_jax.evaluate(measure, trained[0])
  with pytest.raises(ValueError, match="has no split 'test'; known: train"):
    ssl_jax.evaluate(measure, trained[0], source=OWN["train"])


def test_embed_takes_the_same_data(trained):
  found = ssl_jax.embed(trained[0], source=OWN["test"], batch_size=32)
  run = ssl_jax.restore(trained[0])
  np.testing.assert_allclose(
    found.features[:3], run.encode([OWN["test"][i]["image"] for i in range(3)]), atol=1e-4
  )
  assert found.labels.tolist() == [i % 10 for i in range(64)]


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(every_epochs=1.0), "config.online.test_split is ''; name images that are not trained on"),
    (dict(every_epochs=-1.0), "config.online.every_epochs is -1.0; use a number of epochs, or 0"),
  ],
)
def test_senseless_online_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    OnlineConfig(**options)


# --- a restored network ---


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  return ssl_jax.restore(saved_run(tmp_path_factory.mktemp("classifier"), "supervised"))


def images(count, height=16, width=16):
  return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_any_number_of_images_in_any_form_gives_the_same_features(classifier):
  batch = images(11)
  expected = classifier.backbone.features(batch)
  floats = batch / np.float32(255)
  for form in (batch, floats, jax.numpy.asarray(floats), list(batch), [Image.fromarray(i) for i in batch]):
    np.testing.assert_allclose(classifier.encode(form, batch_size=8), expected, rtol=1e-5)
  np.testing.assert_allclose(classifier.encode(batch[:1], batch_size=8), expected[:1], rtol=1e-5)


def test_images_of_another_size_are_resized_as_in_an_evaluation(classifier):
  crop = transforms.resize_center_crop(16)
  large, photo = images(2, 24, 30), images(1, 40, 17)[0]
  square = np.stack([crop(None, image) for image in (*large, photo)])
  found = classifier.encode([*large, photo], batch_size=8)
  np.testing.assert_allclose(found, classifier.backbone.features(square), rtol=1e-5)
  np.testing.assert_allclose(classifier.encode(large / 255.0, batch_size=8), found[:2], rtol=1e-5)


def test_predictions_are_probabilities_and_maps_have_their_layers(classifier):
  batch = images(3)
  found = classifier.predict(batch, batch_size=8)
  assert found.shape == (3, 10) and found.dtype == np.float32
  np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
  maps = classifier.pyramid(batch, batch_size=8)
  assert all(leaf.ndim == 4 and len(leaf) == 3 for leaf in maps.values()) and "stage4" in maps


def test_one_program_serves_every_number_of_images(classifier):
  traces = []

  def count(params, model_state, rows):
    traces.append(rows.shape)
    return rows.mean((1, 2))

  shared = dict(size=16, interpolation="bilinear", mesh=classifier.mesh, batch_size=8)
  for number in (1, 8, 11):
    found = apply_in_batches(count, classifier.backbone.weights, images(number), **shared)
    np.testing.assert_allclose(found, images(number).mean((1, 2)) / 255, atol=1e-5)
  assert traces == [(8, 16, 16, 3)]


@pytest.mark.parametrize(
  "wrong, message",
  [
    (images(1)[0], r"the shape \(16, 16, 3\); use \[N, H, W, 3\], or images\[None\]"),
    (images(0), "there are no images"),
    (images(2) / 2.0, "image 0 has pixels of type float64"),
  ],
)
def test_other_arrays_are_refused(classifier, wrong, message):
  with pytest.raises(ValueError, match=message):
    classifier.encode(wrong)


def test_predictions_of_a_data_set_are_those_of_its_images(classifier, tmp_path_factory, tmp_path):
  workdir = saved_run(tmp_path_factory.mktemp("predicting"), "supervised")
  found = ssl_jax.predict(workdir, source=OWN["test"], output=tmp_path, batch_size=32)
  batch = np.stack([row["image"] for row in (OWN["test"][i] for i in range(3))])
  np.testing.assert_allclose(found.probabilities[:3], classifier.predict(batch), atol=1e-5)
  assert (tmp_path / "predictions.csv").exists() and len(found.names) == 64


def test_a_network_without_classes_predicts_nothing(trained):
  with pytest.raises(MissingAbility, match="predict needs a network with the ability Classifier"):
    ssl_jax.restore(trained[0]).predict(images(1))
