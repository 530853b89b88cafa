"""Configs: completed, checked, read back from JSON; wrong ones are refused with the nearest names."""

import dataclasses
import json
import re
import runpy
from typing import Literal

import pytest

from ssl_jax.config.checked import call_checked, nearest
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.recipe_files import check_variant
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check, differences, to_json
from tests.recipes import CONFIGS

SMALL = dict(
  method=dict(name="moco", queue_size=512),
  encoder=dict(name="resnet18"),
  augment=dict(name="moco_v2", views=2, size=32),
  optimizer=dict(learning_rate=0.1),
  data=dict(name="sample"),
  batch_size=64,
  epochs=1.0,
)


def test_recipe_completes_every_section_so_that_all_options_can_be_overridden():
  config = recipe(**SMALL)
  assert config.method.temperature == 0.07 and config.encoder.width == 64
  assert config.optimizer.momentum == 0.9 and config.data.max_bad_fraction == 0.01
  assert config.checkpoint.keep == 3 and config.seed == 0
  assert config.method.queue_size == 512


def test_checked_config_survives_json():
  config = check(TrainConfig, recipe(**SMALL))
  assert to_json(check(TrainConfig, json.loads(json.dumps(to_json(config))))) == to_json(config)
  other = dataclasses.replace(config, batch_size=128, data=dataclasses.replace(config.data, cache=True))
  assert differences(to_json(config), to_json(other)) == [
    "config.batch_size: 64 -> 128",
    "config.data.cache: False -> True",
  ]


def test_evaluation_recipe_completes_its_tasks():
  config = recipe(EvaluateConfig, tasks=dict(knn=dict(k=5)))
  assert config.tasks.knn.k == 5 and config.tasks.knn.temperature == 0.07
  assert check(EvaluateConfig, config).data.test_split == "test"


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(batch_sise=3), r"config.batch_sise is unknown; did you mean 'batch_size'"),
    (dict(batch_size=0), r"config.batch_size is 0; use a positive number"),
    (dict(batch_size="many"), r"config.batch_size is 'many' of type str; use a value of type int"),
    (dict(data=dict(name="sample", crop="gpu")), r"config.data.crop is 'gpu'; known: device, host"),
    (dict(sharding="fspd"), r"config.sharding is 'fspd'; did you mean 'fsdp'"),
    (dict(epochs=True), r"config.epochs is True of type bool; use a value of type float"),
  ],
)
def test_refusals(change, message):
  with pytest.raises(ValueError, match=message):
    check(TrainConfig, {**recipe(**SMALL).to_dict(), **change})


@pytest.mark.parametrize(
  "section, name, message",
  [
    ("method", "mocco", r"config.method.name: no method is called 'mocco'; did you mean 'moco'"),
    ("encoder", "resnet5", r"config.encoder.name: no encoder is called 'resnet5'"),
  ],
)
def test_unknown_names_are_refused_with_the_nearest(section, name, message):
  with pytest.raises(ValueError, match=message):
    recipe(**{**SMALL, section: dict(name=name)})


def test_call_checked_converts_values_that_json_and_flags_cannot_express():
  def function(*, rate: float, sizes: tuple[int, ...] = (), kind: Literal["a", "b"] = "a"):
    return rate, sizes, kind

  assert call_checked(function, {"rate": 1, "sizes": [1, 2]}, "x") == (1.0, (1, 2), "a")
  for options, message in [
    ({}, "x.rate is missing"),
    ({"rate": 1.0, "sizes": (1.5,)}, "x.sizes is 1.5"),
    ({"rate": 1.0, "kind": "c"}, "x.kind is 'c'"),
  ]:
    with pytest.raises(ValueError, match=message):
      call_checked(function, options, "x")


def test_nearest_lists_all_that_is_known():
  assert nearest("cat", ["cart", "dog"]) == "; did you mean 'cart'? known: cart, dog"


VARIANTS = {  # "folder/file.py": the variants of the recipe
  path.relative_to(CONFIGS).as_posix(): tuple(variants)
  for path in sorted(CONFIGS.glob("*/*.py"))
  if (variants := runpy.run_path(str(path)).get("VARIANTS"))
}


def test_some_recipes_have_variants():
  assert len(VARIANTS) >= 17 and "pretrain/moco.py" in VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_an_unknown_variant_is_refused_with_the_file_and_the_known_variants(name):
  made = runpy.run_path(str(CONFIGS / name))
  get = made.get("get_config") or made["get_study"]
  with pytest.raises(ValueError, match=rf"^configs/{name} has no variant 'x_y_z'; known: ") as refused:
    get("x_y_z")
  assert str(refused.value).partition("known: ")[2].split(", ") == sorted(VARIANTS[name])


def test_check_variant_returns_a_known_variant_and_suggests_similar_ones(tmp_path):
  own = str(tmp_path / "own.py")
  assert check_variant("b", {"a": 1, "b": 2}, own) == "b"
  message = f"{own} has no variant 'larg'; did you mean 'large'? known: large, small"
  with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
    check_variant("larg", ("small", "large"), own)
