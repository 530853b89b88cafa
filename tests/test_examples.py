"""examples/: a method from outside of the package is trained by its name, resumed, restored and measured."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_jax
from ssl_jax.config.recipe_files import load_recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from tests.conftest import REPOSITORY
from tests.recipes import shrunk


@pytest.fixture
def example(monkeypatch):
  """The recipe of the example, loaded as the command line does."""
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setattr(sys, "path", sys.path.copy())
  return check(TrainConfig, load_recipe("examples/simsiam.py"))


def test_the_loss_is_the_cosine_and_its_target_gets_no_gradient(example):
  from examples.simsiam import negative_cosine

  p, z = jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.array([[4.0, 3.0], [-2.0, 0.0]])
  np.testing.assert_allclose(negative_cosine(p, z), [-24 / 25, 1.0], rtol=1e-6)
  to_p, to_z = jax.grad(lambda p, z: negative_cosine(p, z).sum(), (0, 1))(p, z)
  assert np.abs(to_p).max() > 0.01 and not np.any(to_z)


@pytest.fixture
def config(example):
  """The recipe in a small form."""
  small = shrunk(example, batch=32, size=16) | {"epochs": 12.0, "log_every": 1}
  small["optimizer"] |= {"learning_rate": 0.1, "scaling": "none"}
  small["method"] |= {"dim": 16, "hidden": 8}
  small["data"] |= {"split": "train[:64]", "cache": True}
  return check(TrainConfig, small)


def test_simsiam_learns_by_every_part_and_is_restored_by_its_name(config, tmp_path):
  ssl_jax.train(config, tmp_path / "run")
  run = ssl_jax.restore(tmp_path / "run")
  networks = (each.weights.params for each in (run.untrained(), run.backbone))
  moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), *networks)
  assert set(moved) == {"encoder", "head", "predictor"} and all(jax.tree.leaves(moved))
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert rows[0]["loss"] == pytest.approx(0, abs=0.5) and rows[-1]["loss"] < rows[0]["loss"] - 0.2
  assert rows[-1]["spread"] > 0.1  # 0 if it collapsed, and 1/4 if it uses all dimensions
  table = ssl_jax.evaluate(
    ssl_jax.recipe(
      EvaluateConfig, tasks=dict(knn=dict(k=5)), data=dict(test_split="test[:32]"), batch_size=32
    ),
    tmp_path / "run",
  )
  assert set(table) == {"simsiam"} and (tmp_path / "run/evaluations/step24/knn-simsiam.json").exists()


def test_a_name_without_a_module_is_refused(config):
  method = dict(config.method)
  for name, message in (
    ("examples.simsam:make", "config.method.name is 'examples.simsam:make', but there is no module"),
    ("examples.simsiam:mke", "has no function 'mke'; did you mean 'make'"),
  ):
    with pytest.raises(ValueError, match=message):
      ssl_jax.train(dataclasses.replace(config, method={**method, "name": name}), "unused")
  with pytest.raises(ValueError, match="config.method.dimm is unknown; did you mean 'dim'"):
    ssl_jax.train(dataclasses.replace(config, method={**method, "dimm": 3}), "unused")
