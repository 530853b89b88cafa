"""Networks that PyTorch's libraries do not have: their tensors have the names and layouts of this one."""

import jax
import numpy as np
import pytest

from ssl_jax import convert, parallel
from ssl_jax.abilities import Actor
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.convert import files
from ssl_jax.core import DataSpec, Weights
from ssl_jax.run.restore import restore
from tests.recipes import shrunk, train_recipes

KEY = jax.random.key(0)


def config_of(recipe: str) -> TrainConfig:
  return check(TrainConfig, shrunk(train_recipes()[recipe], batch=8, size=16))


POLICY, JOINT = "pretrain/policy_cpu.py:inverse_dynamics", "pretrain/joint.py:cifar10_cpu"


def written(recipe: str, tmp_path):
  """(A file like those of `ssl-jax export`, its tensors, the same as a pytree)."""
  config, data = config_of(recipe), DataSpec(64, 10, 8)
  parts = convert.assemble(config, data)
  abstract, _ = convert.abstract_state(parts, config, parallel.make_mesh(jax.devices()[:1]))
  rng = np.random.default_rng(0)
  weights = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
    Weights(abstract.params, abstract.model_state),
  )
  tensors = convert._torch_tensors(weights, config)
  files.write_tensors(tmp_path / "w.npz", tensors, convert._identity(config, data, (), ()))
  return tmp_path / "w.npz", tensors, weights


@pytest.mark.parametrize("recipe", [POLICY, JOINT])
def test_a_network_is_imported_and_exported_bit_for_bit(recipe, tmp_path):
  path, tensors, weights = written(recipe, tmp_path)
  assert sum(leaf.size for leaf in tensors.values()) == sum(leaf.size for leaf in jax.tree.leaves(weights))
  assert all("/" in name for name in tensors)
  found = convert.import_weights("npz", path, tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, found, weights)
  convert.export_weights(tmp_path / "run", tmp_path / "again.npz")
  again, _ = files.read_tensors(tmp_path / "again.npz")
  assert again.keys() == tensors.keys()
  for name, leaf in tensors.items():
    np.testing.assert_array_equal(again[name], leaf)


def test_a_policy_that_was_trained_elsewhere_acts_if_its_shapes_fit(tmp_path):
  path, *_ = written(POLICY, tmp_path)
  convert.import_weights("npz", path, tmp_path / "run")
  backbone = restore(tmp_path / "run", parallel.make_mesh(jax.devices()[:1])).backbone
  actor = backbone.method.abilities[Actor]
  clip = np.random.default_rng(1).uniform(size=(2, actor.frames + 1, actor.size, actor.size, 3))
  assert np.isfinite(actor.act(*backbone.weights, clip.astype(np.float32))).all()


def test_what_does_not_fit_is_named(tmp_path):
  path, tensors, _ = written(POLICY, tmp_path)
  note = files.read_tensors(path)[1]
  name = next(iter(tensors))
  wrong = {**tensors, name: tensors[name][..., :1], "stranger": np.zeros(3, np.float32)}
  files.write_tensors(tmp_path / "wrong.npz", wrong, note)
  with pytest.raises(ValueError, match=f"{name} has shape .*, expected .*; unused stranger"):
    convert.import_weights("npz", tmp_path / "wrong.npz", tmp_path / "run")
  assert not (tmp_path / "run").exists()
