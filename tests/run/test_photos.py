"""Photos of any sizes: splits that are found or held back, caching, and photos without classes."""

import dataclasses

import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, check
from ssl_jax.data import sources
from ssl_jax.run import evaluate as evaluation
from ssl_jax.run.evaluate import evaluate, task_data
from ssl_jax.run.train import train
from ssl_jax.view.request import PictureRequest
from ssl_jax.view.show import show
from tests.photos import saved_run, tiny, write_photos

pytestmark = pytest.mark.filterwarnings("ignore:The queue of")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return saved_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Sixty photos in class folders, without splits."""
  return write_photos(tmp_path_factory.mktemp("photos"), each=20)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """Sixty photos without classes."""
  return write_photos(tmp_path_factory.mktemp("plain"), each=20, classes=False)


def on(folder, config):
  """The config of a run, on a folder of photos."""
  return dataclasses.replace(
    config, data=dataclasses.replace(config.data, name="folder", split="train", data_dir=str(folder))
  )


def measuring(folder, **data):
  return check(
    EvaluateConfig,
    recipe(
      EvaluateConfig,
      tasks=dict(knn=dict(k=3, also=())),
      data=dict(name="folder", data_dir=str(folder), train_split="train", cache=True) | data,
      batch_size=16,
    ),
  )


def test_a_tenth_of_every_class_is_held_back_and_said(photos):
  kept, rest = (
    sources.open_split("folder", split=split, data_dir=str(photos)) for split in ("train", "test")
  )
  names = [{source.name(i) for i in range(len(source))} for source in (kept, rest)]
  assert len(kept) == 54 and len(rest) == 6 and not names[0] & names[1]
  assert np.bincount([rest[i]["label"] for i in range(6)]).tolist() == [2, 2, 2]
  assert "a tenth of each class, train[90%:], is held back" in kept.summary()
  assert "train[90%:] is used, which training holds back" in rest.summary()
  assert len(sources.make("folder", split="train", data_dir=str(photos))) == 60


def test_a_validation_folder_is_the_test_split(tmp_path):
  for number, split in enumerate(("train", "valid")):
    write_photos(tmp_path / split, each=4, first=1000 * number)
  found = sources.open_split("folder", split="test", data_dir=str(tmp_path))
  assert len(found) == 12 and "it has no split 'test': 'valid' is used" in found.summary()
  assert not sources.open_split("folder", split="train", data_dir=str(tmp_path)).note


def test_cached_photos_score_as_photos_that_are_read_each_time(workdir, photos):
  trained, mesh = tiny(), parallel.make_mesh()
  images = []
  for cache in (True, False):
    data = task_data(measuring(photos, cache=cache), trained, mesh)
    images.append(np.concatenate([batch["image"] for batch in data.test()]))
  assert images[0].shape[1:] == (16, 16, 3)
  np.testing.assert_array_equal(*images)
  found = evaluate(measuring(photos), workdir)["moco"]["knn"]["top1"]
  assert found == evaluate(measuring(photos, cache=False), workdir)["moco"]["knn"]["top1"]


def test_test_images_that_were_not_held_back_are_refused(workdir, photos):
  with pytest.raises(ValueError, match="6 of the 6 test images are also training images: .* no split 'test'"):
    evaluate(measuring(photos, train_split="train[:100%]"), workdir)


def test_photos_without_classes_train_and_show(plain, tmp_path, capsys):
  config = on(plain, tiny())
  state = train(config, tmp_path / "run")
  assert int(state.step) == 54 // 32
  assert "a tenth of each class, train[90%:], is held back" in capsys.readouterr().out
  show(["corruptions"], PictureRequest(config=config, output=str(tmp_path / "c.png"), size=32))
  assert (tmp_path / "c.png").stat().st_size > 10_000


@pytest.mark.parametrize(
  "tasks", [dict(knn={}), dict(mine=dict(task="linear_probe")), dict(low_shot={}), dict(robustness={})]
)
def test_tasks_with_classes_refuse_photos_without_any_before_anything_is_encoded(
  tasks, workdir, plain, monkeypatch
):
  monkeypatch.setattr(evaluation.features, "remembered", lambda: pytest.fail("something is encoded"))
  config = dataclasses.replace(measuring(plain), tasks=tasks)
  name = next(iter(tasks))
  with pytest.raises(ValueError, match=f"task {name!r} needs the class of every image, but the (train|test)"):
    evaluate(config, workdir)
