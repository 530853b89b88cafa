"""Classes are compared by name: a network meets data sets that number, lack or rename its classes."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.convert import export_weights, import_weights
from ssl_jax.run import evaluate as evaluation
from ssl_jax.run import identity
from ssl_jax.run import train as training
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.restore import restore

COLOURS = {"ant": (200, 200, 40), "cat": (200, 40, 40), "dog": (40, 200, 40), "fox": (40, 40, 200)}
TRAINED = ("cat", "dog", "fox")


def fill(folder: pathlib.Path, names, count: int = 16, seed: int = 0) -> pathlib.Path:
  """Noisy images of one colour for each class."""
  draw = np.random.default_rng(seed)
  for name in names:
    (folder / name).mkdir(parents=True)
    for i in range(count):
      image = np.array(COLOURS[name]) + draw.normal(0, 25, (16, 16, 3))
      Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
  return folder


def trained(data_dir, **changes) -> TrainConfig:
  options = dict(
    method=dict(name="supervised"),
    encoder=dict(name="resnet10", width=8, stem="small"),
    augment=dict(name="none", views=1, size=16),
    optimizer=dict(learning_rate=0.05),
    data=dict(name="folder", data_dir=str(data_dir), size=16, cache=True),
    batch_size=16,
    epochs=12.0,
  )
  return check(TrainConfig, recipe(**{**options, **changes}))


def measure(workdir, *, task="classification", data_dir="", **options) -> dict:
  config = recipe(
    EvaluateConfig,
    tasks={task: options},
    data=dict(data_dir=str(data_dir), test_split="test", cache=True),
    batch_size=16,
  )
  return evaluation.evaluate(check(EvaluateConfig, config), workdir)["supervised"][task]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
  root = tmp_path_factory.mktemp("data")
  fill(root / "train", TRAINED)
  fill(root / "test", TRAINED, seed=1)
  return root


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("run")
  training.train(trained(data), path)
  assert measure(path)["top1"] == 1
  return path


def test_a_run_keeps_the_names(workdir):
  with Checkpoints(workdir) as checkpoints:
    (step,) = checkpoints.steps()
    assert checkpoints.config(step)["data"]["class_names"] == list(TRAINED)
  assert restore(workdir).backbone.class_names == TRAINED


def test_some_of_the_classes_get_the_networks_numbers(workdir, tmp_path):
  for split in ("train", "test"):
    fill(tmp_path / split, ("dog", "fox"), seed=2)
  assert measure(workdir, data_dir=tmp_path)["top1"] == 1


def test_other_classes_are_refused_by_name(workdir, tmp_path):
  for split in ("train", "test"):
    fill(tmp_path / split, ("ant", "cat", "dog"), seed=2)
  for task in ("classification", "robustness"):
    with pytest.raises(ValueError, match="the network's training images: ant; it has cat, dog, fox"):
      measure(workdir, task=task, data_dir=tmp_path)
  assert measure(workdir, task="knn", data_dir=tmp_path, k=3)["top1"] > 0.5  # needs no classifier


def test_a_released_set_may_lack_classes_but_not_rename_them(workdir, tmp_path):
  fill(tmp_path / "fog" / "3", ("dog", "fox"), seed=3)
  options = dict(task="robustness", corruptions=("fog",), severities=(3,))
  assert measure(workdir, released=str(tmp_path), **options)["fog"] == 0
  (tmp_path / "fog" / "3" / "fox").rename(tmp_path / "fog" / "3" / "zorro")
  with pytest.raises(ValueError, match="zorro; it has cat, dog, fox"):
    measure(workdir, released=str(tmp_path), **options)


def test_a_run_is_not_resumed_with_renamed_classes(workdir, tmp_path):
  fill(tmp_path / "train", ("ant", "dog", "fox"))
  with pytest.raises(ValueError, match="data.class_names: the data is now without cat and with ant"):
    training.train(trained(tmp_path), workdir)


def test_test_classes_without_a_training_image_are_told(workdir, tmp_path, capsys):
  fill(tmp_path / "train", ("cat", "dog"))
  fill(tmp_path / "test", ("cat", "dog", "fox"))
  measure(workdir, task="knn", data_dir=tmp_path, k=3)
  assert "knn: test classes without a training image: fox" in capsys.readouterr().out
  (file,) = (workdir / "evaluations").rglob("knn-supervised.json")
  assert json.loads(file.read_text())["protocol"]["test_classes_without_training_images"] == ["fox"]


def test_an_old_checkpoint_without_names_and_later_options_is_evaluated_and_resumed(
  data, tmp_path, monkeypatch
):
  """Options that were added after a checkpoint was written are compared by their defaults."""
  with monkeypatch.context() as old:
    complete = identity.to_json

    def without_later_options(config):
      stored = complete(config)
      del stored["host"], stored["accumulate"], stored["data"]["max_bad_fraction"]
      return stored

    old.setattr(identity, "to_json", without_later_options)
    first = training.train(trained(data, checkpoint=dict(every_steps=10, keep=9)), tmp_path)
  for folder in (tmp_path / "checkpoints").iterdir():
    if folder.name != "step_10":
      shutil.rmtree(folder)
  with Checkpoints(tmp_path) as checkpoints:
    assert "host" not in checkpoints.config(10)["config"]
  assert set(measure(tmp_path)) == {"top1", "top5"}
  again = training.train(trained(data, checkpoint=dict(every_steps=10, keep=9)), tmp_path)
  assert int(again.step) == int(first.step) == 36
  for one, other in zip(jax.tree.leaves(first.params), jax.tree.leaves(again.params), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_picture_that_cannot_be_drawn_does_not_end_an_evaluation(workdir, monkeypatch, capsys):
  def broken(*args, **options):
    raise RuntimeError("no font has this glyph")

  monkeypatch.setattr(evaluation, "plot_confusion", broken)
  assert measure(workdir)["top1"] == 1
  assert (
    "classification-supervised: a plot could not be drawn: RuntimeError: no font" in capsys.readouterr().out
  )


def test_exported_and_imported_weights_keep_the_names(workdir, tmp_path):
  file = export_weights(workdir, tmp_path / "weights.npz")
  import_weights("npz", file, tmp_path / "copy")
  assert restore(tmp_path / "copy").backbone.class_names == TRAINED
