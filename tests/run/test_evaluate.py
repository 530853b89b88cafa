"""The whole system: pretrain a tiny network, save, restore, evaluate above chance; then wrong inputs."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.run.evaluate import evaluate, restore
from ssl_jax.run.train import train

DATA = dict(name="synthetic", split="train[:256]", size=16, cache=True)
MEASURE = dict(
  tasks=dict(
    knn=dict(k=5, also=(1,)), linear_probe=dict(epochs=10, batch_size=64, learning_rates=(1.0, 10.0))
  ),
  data=dict(test_split="test[:128]", cache=True),
  batch_size=64,
)


def measure(workdir, **changes):
  return evaluate(check(EvaluateConfig, recipe(EvaluateConfig, **{**MEASURE, **changes})), workdir)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  train(
    check(
      TrainConfig,
      recipe(
        method=dict(name="moco", dim=16, mlp=True, queue_size=128, momentum=0.9, temperature=0.2),
        encoder=dict(name="resnet10", width=8, stem="small", batch_groups=8),
        augment=dict(name="moco_v2", views=2, size=16),
        optimizer=dict(learning_rate=0.05),
        data=DATA,
        batch_size=64,
        epochs=4.0,
        checkpoint=dict(every_steps=8, keep=2),
      ),
    ),
    path,
  )
  return path


@pytest.fixture(scope="module")
def table(workdir):
  return measure(workdir, baselines=("pixels", "untrained"))


def test_every_representation_is_above_chance_in_every_task(table):
  assert set(table) == {"raw pixels", "untrained", "moco"}
  for label, row in table.items():
    assert set(row) == {"knn", "linear_probe"}
    for name, scalars in row.items():
      assert scalars["top1"] > 0.2, (label, name)  # ten classes


def test_json_holds_the_whole_protocol_and_pictures_lie_beside_it(workdir, table):
  folder = workdir / "evaluations" / "step16"
  found = json.loads((folder / "knn-moco.json").read_text())
  assert found["scalars"] == table["moco"]["knn"]
  assert {
    "k",
    "temperature",
    "resize",
    "crop",
    "data",
    "test_split",
    "order_of_cuts",
    "step",
    "weights",
    "seed",
    "device",
    "versions",
    "encoder",
    "evaluation_batch_size",
  } <= set(found["protocol"])
  assert found["protocol"]["step"] == 16
  for name in ("knn-moco.png", "knn-moco-neighbours.png", "linear_probe-untrained.png"):
    assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_one_device_finds_what_eight_found(workdir, table, monkeypatch):
  whole = parallel.make_mesh
  monkeypatch.setattr(parallel, "make_mesh", lambda: whole(whole().devices.flat[:1].tolist()))
  assert measure(workdir)["moco"]["knn"] == table["moco"]["knn"]


def test_moving_average_is_another_network(workdir):
  mesh = parallel.make_mesh()
  trained, average = (restore(workdir, mesh, weights=which).backbone for which in ("params", "ema"))
  first, second = (np.asarray(b.weights.params["encoder"]["conv_stem"]["kernel"]) for b in (trained, average))
  assert first.shape == second.shape and np.abs(first - second).max() > 0


def test_older_checkpoint_by_its_step(workdir):
  assert restore(workdir, parallel.make_mesh(), step=8).step == 8


def test_refusals(workdir, tmp_path):
  with pytest.raises(ValueError, match="holds no checkpoint; train one first: ssl-jax train"):
    measure(tmp_path)
  with pytest.raises(ValueError, match=r"no checkpoint of step 3; it has \[8, 16\]"):
    restore(workdir, parallel.make_mesh(), step=3)
  with pytest.raises(ValueError, match="crop_ratio is 1.5; use a fraction in"):
    measure(workdir, data=dict(crop_ratio=1.5))
  with pytest.raises(ValueError, match="no task is called 'kn'; did you mean 'knn'"):
    measure(workdir, tasks=dict(kn={}))


def test_undecodable_images_are_left_out_up_to_the_fraction_that_the_config_allows(workdir, tmp_path, capsys):
  rng = np.random.default_rng(0)
  for split, c, i in itertools.product(("train", "test"), range(2), range(24)):
    (tmp_path / split / str(c)).mkdir(parents=True, exist_ok=True)
    pixels = np.clip(rng.normal(80 + 90 * c, 20, (20, 20, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / split / str(c) / f"{i}.png")
  (tmp_path / "test" / "1" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
  (tmp_path / "test" / "1" / "6.bmp").touch()
  options = dict(tasks=dict(knn=dict(k=3, also=())))
  data = dict(name="folder", data_dir=str(tmp_path), train_split="train", test_split="test")
  with pytest.raises(
    ValueError, match="1 of 48 images.*0 are allowed; .* raise config.data.max_bad_fraction"
  ):
    measure(workdir, data=data, **options)
  capsys.readouterr()
  assert measure(workdir, data={**data, "max_bad_fraction": 0.03}, **options)["moco"]["knn"]["top1"] > 0.5
  assert "folder test: 48 images of 2 classes; not read: 1 .bmp" in capsys.readouterr().out
  found = json.loads((workdir / "evaluations" / "step16" / "knn-moco.json").read_text())
  assert found["protocol"]["query_rows"] == 47
  with pytest.raises(ValueError, match="config.data.max_bad_fraction is not a number"):
    measure(workdir, data={**data, "max_bad_fraction": float("nan")}, **options)
