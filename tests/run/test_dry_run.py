"""Checks of configs without data and devices."""

import dataclasses

import pytest

from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.run.dry_run import check_evaluate, check_train
from tests.recipes import shrunk, train_recipes


def small(name: str = "pretrain/supervised_sample.py", **changes) -> TrainConfig:
  return dataclasses.replace(check(TrainConfig, shrunk(train_recipes()[name], batch=16, size=16)), **changes)


def test_a_run_is_described_with_its_steps_where_the_size_of_the_data_is_known():
  config = small(epochs=2.0)
  data = dataclasses.replace(config.data, name="imagenet2012", data_dir="/tmp/gcs/not-here")
  told = check_train(dataclasses.replace(config, data=data), devices=16)
  assert told.endswith(f"batch 16 on 16 devices, 1,281,167 images of imagenet2012, {2 * 80_072:,} steps")
  data = dataclasses.replace(data, name="folder")
  told = check_train(dataclasses.replace(config, data=data), devices=8)
  assert told.endswith("batch 16 on 8 devices, an unknown number of images of folder")


def test_what_training_would_refuse_is_refused():
  with pytest.raises(ValueError, match="config.batch_size 16 is not divisible by 3 devices"):
    check_train(small(), devices=3)
  with pytest.raises(ValueError, match="config.optimizer"):
    check_train(small(optimizer={"name": "sgd", "learning_rat": 0.1}), devices=1)
  config = small()
  with pytest.raises(ValueError, match="takes one view of an image, but config.augment.views is 2"):
    check_train(dataclasses.replace(config, augment={**config.augment, "views": 2}), devices=1)


def test_evaluations_are_checked():
  config = check(EvaluateConfig, recipe(EvaluateConfig, batch_size=64, tasks=dict(knn=dict(k=5))))
  assert check_evaluate(config, devices=32) == "knn: batch 64 on 32 devices"
  with pytest.raises(ValueError, match="config.batch_size 64 is not divisible by 48 devices"):
    check_evaluate(config, devices=48)
  wrong = dataclasses.replace(config, tasks={"knn": {"kk": 5}})
  with pytest.raises(ValueError, match="config.tasks.knn.kk"):
    check_evaluate(wrong, devices=1)
