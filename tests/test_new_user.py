"""What a new user tries first, each in few lines.

The lines of the README are run by test_readme.py, training from Python by run/test_python_api.py, a method
from outside of the package by test_examples.py, the wheel by cli/test_wheel.py.
"""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import ssl_jax
from tests.conftest import REPOSITORY
from tests.photos import saved_run

pytestmark = pytest.mark.filterwarnings("ignore:The queue of")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return saved_run(tmp_path_factory.mktemp("run"), "supervised")


def images(count: int = 4) -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def test_features_of_a_batch_in_four_lines(workdir):
  run = ssl_jax.restore(workdir)
  features = run.encode(images())
  classes = run.predict(images()).argmax(1)
  maps = run.pyramid(images())
  assert features.shape[0] == classes.shape[0] == len(maps["stage4"]) == 4


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_a_checkpoint_is_read_by_plain_orbax(workdir):
  import orbax.checkpoint as ocp

  tree = ocp.PyTreeCheckpointer().restore(workdir / "checkpoints" / "step_4" / "model")
  run = ssl_jax.restore(workdir)
  jax.tree.map(np.testing.assert_array_equal, tree["params"], run.backbone.weights.params)
  features = run.method.encode(tree["params"], tree["model_state"], images() / np.float32(255))
  np.testing.assert_allclose(features, run.encode(images()), rtol=1e-4)


class Mine(nn.Module):
  """A classifier of the user's own, which knows nothing of this package."""

  @nn.compact
  def __call__(self, images, *, train):
    return nn.Dense(5)(nn.LayerNorm()(nn.relu(nn.Conv(8, (3, 3), strides=2)(images))).mean((1, 2)))


def test_a_network_of_ones_own_keeps_learning_at_test_time():
  from ssl_jax import augment, models, ttt
  from ssl_jax.abilities import Classifier
  from ssl_jax.core import Weights
  from ssl_jax.tasks.backbone import Backbone, encoder_only

  net = models.network(Mine())
  logits = lambda params, state, images: net.apply(Weights(params, state), images)[0]
  weights = net.init(jax.random.key(0), images() / np.float32(255))
  network = ttt.with_objective(
    Backbone(weights, encoder_only(logits, {Classifier: Classifier(logits)})), "memo"
  )
  result = ssl_jax.adapt(
    network,
    images(),
    size=16,
    augment=augment.make("padded_crop", views=1, size=16),
    optimizer=optax.sgd(0.1),
    key=jax.random.key(1),
    steps=2,
    copies=4,
  )
  assert result.logits.shape == (4, 5) and np.isfinite(result.logits).all()
  before = logits(*weights, images() / np.float32(255))
  assert np.abs(result.logits - before).max() > 1e-4


MY_DATA = """
import numpy as np

def make(split):
  return [(np.full((20, 30, 3), 9 * i, np.uint8), i % 2) for i in range({"train": 12, "test": 4}[split])]
"""


def run_command(folder, *words):
  """Runs `ssl-jax` as the installed command does, which does not look into the current folder by itself."""
  return subprocess.run(
    [sys.executable, "-P", "-m", "ssl_jax", *words],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    capture_output=True,
    text=True,
  )


def test_data_in_a_file_of_ones_own_are_shown_and_refused_by_name(tmp_path):
  (tmp_path / "mydata.py").write_text(MY_DATA)
  show = ("show", "augmentations", "--config=pretrain/moco_sample.py", "--output=a.png", "--index=3")
  found = run_command(tmp_path, *show, "--config.data.name=mydata:make")
  assert found.returncode == 0 and (tmp_path / "a.png").exists(), found.stderr
  found = run_command(tmp_path, *show, "--config.data.name=mydatum:make")
  assert found.returncode == 1 and "there is no module 'mydatum'; start the program in" in found.stderr


def test_a_recipe_of_a_method_of_ones_own_is_complete(tmp_path):
  folder = tmp_path / "examples"
  folder.mkdir()
  (folder / "simsiam.py").write_text((REPOSITORY / "examples" / "simsiam.py").read_text())
  found = run_command(
    tmp_path, "train", "--config=examples/simsiam.py", "--config.method.dim=64", "--print_config"
  )
  assert found.returncode == 0 and '"hidden": 64' in found.stdout, found.stderr
