import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.data import pipeline
from ssl_jax.models.normalize import normalize
from ssl_jax.run.assembly import assemble, open_data
from ssl_jax.run.precise_norm import precise_norm
from ssl_jax.run.restore import restore
from tests.recipes import save, shrunk, train_recipes

BATCHES, SIZE = 3, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  config = shrunk(train_recipes()["pretrain/supervised_sample.py"], batch=16, size=SIZE)
  return restore(save(check(TrainConfig, config), tmp_path_factory.mktemp("run")))


def views_of(run):
  """The augmented images of the first batches of the training run."""
  source, transform = open_data(run.config)
  parts = assemble(run.config, DataSpec(len(source), source.num_classes, 16))
  batches = pipeline.train_batches(
    source, batch_size=16, seed=run.config.seed, start=0, stop=BATCHES, transform=transform
  )
  key = jax.random.key(run.config.seed)
  found = []
  for i, batch in enumerate(batches):
    augment_key, _ = jax.random.split(jax.random.fold_in(key, i))
    found.append(parts.augment(augment_key, batch)["image"])
  return jnp.concatenate(found)


@pytest.mark.parametrize("devices", [1, 8])
def test_statistics_are_those_of_all_batches_together(run, devices):
  """The oracle convolves all images with the first layer and takes the mean and variance of every channel."""
  mesh = parallel.make_mesh(jax.devices()[:devices])
  found = precise_norm(run, mesh, BATCHES)
  kernel = run.backbone.weights.params["encoder"]["conv_stem"]["kernel"]
  images = normalize(views_of(run), run.config.encoder["normalize"])
  pad = kernel.shape[0] // 2
  stride = {"small": 2, "imagenet": 2, "cifar": 1}[run.config.encoder["stem"]]
  out = jax.lax.conv_general_dilated(
    images, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  state = found.weights.model_state["encoder"]["batch_stats"]["norm_stem"]
  np.testing.assert_allclose(state["mean"], out.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(state["var"], out.var((0, 1, 2)), rtol=1e-3)
  assert found.protocol["precise_batches"] == BATCHES
  jax.tree.map(np.testing.assert_array_equal, found.weights.params, run.backbone.weights.params)


def test_no_batches_change_nothing(run):
  mesh = parallel.make_mesh(jax.devices()[:1])
  assert precise_norm(run, mesh, 0) is run.backbone
  with pytest.raises(ValueError, match="config.precise_batches is -1; use 0"):
    check(EvaluateConfig, {"tasks": {"knn": {}}, "precise_batches": -1})
