"""Conformance: every recipe loads and is complete, and its whole train step can be traced."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from ssl_jax import tasks
from ssl_jax.core import DataSpec, make_init, make_train_step
from ssl_jax.run.assembly import assemble, host_transform
from tests.recipes import CONFIGS, evaluate_recipes, train_recipes

SPECS = {"imagenet2012": (1_281_167, 1000), "cifar10": (50_000, 10), "sample": (7992, 10)}


@pytest.mark.parametrize("name", train_recipes())
def test_pretraining_step_can_be_traced(name):
  config = train_recipes()[name]
  parts = assemble(
    config, DataSpec(*SPECS.get(config.data.name, (100_000, 10)), batch_size=config.batch_size)
  )
  args = (parts.method, parts.augment, parts.optimizer.transform)
  state = jax.eval_shape(make_init(*args), jax.random.key(0), parts.batch)
  after, metrics = jax.eval_shape(make_train_step(*args), state, parts.batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert {"loss", "gradient_norm"} <= set(metrics)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", evaluate_recipes())
def test_the_tasks_of_an_evaluation_recipe_can_be_made(name):
  for task, options in evaluate_recipes()[name].tasks.items():
    assert tasks.make(**{"task": task, **options}).name == options.get("task", task)


def test_crops_of_the_host_are_those_of_the_recipe():
  """SimCLR's are TensorFlow's, without antialiasing; those of MoCo and supervised training torchvision's."""
  cut = {name: host_transform(config).pixels for name, config in train_recipes().items() if on_host(config)}
  for name, pixels in cut.items():
    simclr = "simclr" in name
    assert (pixels.sampler, pixels.antialias) == (("tf", False) if simclr else ("pt", True)), name
    assert not simclr or pixels.interpolation == "bicubic"
  assert any("simclr" in name for name in cut) and any("moco" in name for name in cut)
  probe = next(c for name, c in evaluate_recipes().items() if "linear_probe" in name and "simclr" in name)
  wanted = {"name": "supervised", "sampler": "tf", "method": "bicubic", "antialias": False}
  assert wanted.items() <= dict(probe.augment).items() and probe.data.interpolation == "bicubic"


def on_host(config):
  return config.data.crop == "host"


def test_a_host_crop_that_differs_from_the_recipe_is_refused():
  config = next(c for name, c in train_recipes().items() if "simclr" in name and on_host(c))
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, interpolation="bilinear"))
  with pytest.raises(
    ValueError, match="interpolation is 'bilinear', but .* 'simclr' resizes its crops by 'bic"
  ):
    host_transform(other)
  other = dataclasses.replace(config, augment={"name": "padded_crop", "views": 2, "size": 224, "pad": 4})
  with pytest.raises(
    ValueError, match="crop is 'host', but the augmentation 'padded_crop' does not begin with"
  ):
    host_transform(other)


def test_every_recipe_states_its_command():
  for path in CONFIGS.glob("*/*.py"):
    text = path.read_text()
    flag = "--study" if path.parent.name == "studies" else "--config"
    assert f"{flag}=configs/{path.parent.name}/{path.name}" in text, path.name
