import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.crops import to_float
from ssl_jax.tasks import linear_probe
from ssl_jax.tasks.backbone import digest

from .conftest import with_params

QUICK = dict(preset="moco", batch_size=32, epochs=10)


def probe(backbone, data, mesh, *, key=0, **options):
  return linear_probe.make(**{**QUICK, **options}).run(backbone, data, mesh, jax.random.key(key))


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"live": True},
    {"preset": "simclr", "learning_rates": (1.0,)},
    {"preset": "mae", "learning_rates": (100.0,), "warmup_epochs": 1},
  ],
  ids=str,
)
def test_separable_classes_are_read_perfectly(dense, blobs, make_data, mesh_of, options):
  result = probe(dense, make_data(blobs(160, 0), blobs(70, 1), 3), mesh_of(8), **options)
  assert result.scalars["top1"] == 1.0 and result.scalars["top5"] == 1.0
  np.testing.assert_array_equal(result.predictions["prediction"], result.predictions["label"])


@pytest.mark.parametrize("live", [False, True])
def test_noise_scores_chance(dense, noise, make_data, mesh_of, live):
  data = make_data(noise(1000, 0), noise(1000, 1), 10, size=500)
  result = probe(dense, data, mesh_of(1), learning_rates=(0.3,), live=live)
  assert abs(result.scalars["top1"] - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 1000)


def test_the_rate_is_chosen_on_training_images_only(dense, blobs, noise, make_data, mesh_of):
  """The chosen learning rate must not change when the test labels do."""
  train, (images, labels) = blobs(160, 0, noise=60.0), blobs(70, 1, noise=60.0)
  rates = (1e-4, 3.0, 0.03)
  honest = probe(dense, make_data(train, (images, labels), 3), mesh_of(1), learning_rates=rates)
  wrong = probe(dense, make_data(train, (images, (labels + 1) % 3), 3), mesh_of(1), learning_rates=rates)
  assert honest.protocol["learning_rate"] == wrong.protocol["learning_rate"] != 1e-4
  assert honest.protocol["validation_rows"] == 16 and honest.protocol["train_rows"] == 144
  assert [row["learning_rate"] for row in honest.protocol["sweep"]] == list(rates)
  for row in honest.protocol["sweep"]:
    assert 0 <= row["validation_top1"] <= 1 and 0 <= row["test_top1"] <= 1
  assert "held-out part of the training set" in honest.protocol["chosen_by"]
  chosen = rates.index(honest.protocol["learning_rate"])
  assert honest.scalars["top1"] == honest.protocol["sweep"][chosen]["test_top1"]


def test_given_validation_is_used_and_a_single_rate_keeps_all_images(dense, blobs, make_data, mesh_of):
  data = make_data(blobs(96, 0), blobs(40, 1), 3, validation=blobs(50, 2))
  swept = probe(dense, data, mesh_of(1), learning_rates=(1.0, 0.1))
  assert (swept.protocol["train_rows"], swept.protocol["validation_rows"]) == (96, 50)
  single = probe(dense, data, mesh_of(1), learning_rates=(1.0,))
  assert (single.protocol["train_rows"], single.protocol["validation_rows"]) == (96, 0)
  assert single.protocol["sweep"][0]["validation_top1"] is None
  assert "no choice" in single.protocol["chosen_by"]
  assert single.scalars["top1"] == swept.protocol["sweep"][0]["test_top1"]


def test_eight_devices_equal_one(dense, blobs, make_data, mesh_of):
  train, test, validation = (blobs(count, seed, noise=60.0) for seed, count in enumerate((160, 70, 60)))
  data = make_data(train, test, 3, validation=validation)
  for live in (False, True):
    one, eight = (probe(dense, data, mesh_of(n), learning_rates=(1.0, 0.1), live=live) for n in (1, 8))
    assert one.scalars["top1"] == eight.scalars["top1"] < 1
    np.testing.assert_allclose(one.scalars["train_loss"], eight.scalars["train_loss"], rtol=1e-5)
    np.testing.assert_array_equal(one.predictions["prediction"], eight.predictions["prediction"])


def test_live_without_augmentation_agrees_with_cached(dense, blobs, make_data, mesh_of):
  data = make_data(blobs(160, 0, noise=60.0), blobs(300, 1, noise=60.0), 3)
  cached, live = (probe(dense, data, mesh_of(1), learning_rates=(0.3,), live=live) for live in (False, True))
  assert 0.8 < cached.scalars["top1"] < 1 and abs(cached.scalars["top1"] - live.scalars["top1"]) < 0.03
  np.testing.assert_allclose(cached.scalars["train_loss"], live.scalars["train_loss"], rtol=0.05)


def test_augmentation_reaches_training_and_not_the_test_images(dense, blobs, make_data, mesh_of):
  """Every training image is inverted: the heads learn inverted images and misclassify the original ones."""
  seen = []

  def invert(key, batch):
    seen.append(jax.random.key_data(key).shape)
    flipped = 1 - to_float(batch["image"])
    return {**batch, "image": flipped + 0 * jax.random.uniform(key, flipped.shape)}

  train, test = blobs(160, 0), blobs(70, 1)
  inverted = 255 - test[0]
  upright = probe(dense, make_data(train, test, 3, augment=invert), mesh_of(1), live=True)
  matching = probe(dense, make_data(train, (inverted, test[1]), 3, augment=invert), mesh_of(1), live=True)
  assert matching.scalars["top1"] == 1.0 and upright.scalars["top1"] < 0.9 and seen
  cached = probe(dense, make_data(train, test, 3, augment=invert), mesh_of(1))
  assert cached.scalars["top1"] == 1.0  # features that are computed once use the evaluation view


def test_the_backbone_stays_bit_identical(dense, blobs, make_data, mesh_of):
  backbone = with_params(dense, jax.tree.map(jnp.asarray, dense.weights.params))
  before = digest(backbone)
  result = probe(backbone, make_data(blobs(96, 0), blobs(40, 1), 3), mesh_of(8), live=True)
  assert digest(backbone) == before == result.protocol["backbone_sha256"]


def test_a_backbone_that_moves_is_an_error(dense, blobs, make_data, mesh_of):
  moving = dense._replace(
    weights=dense.weights._replace(model_state={"mean": dense.weights.model_state["mean"].copy()})
  )
  data = make_data(blobs(96, 0), blobs(40, 1), 3)

  def train_steps(*arguments):
    for batch in data.train_steps(*arguments):
      moving.weights.model_state["mean"][0] += 1e-3
      yield batch

  with pytest.raises(RuntimeError, match="changed the backbone it measures: digest .* became"):
    probe(moving, data._replace(train_steps=train_steps), mesh_of(1), live=True)


def test_the_protocol_is_json_and_whole(dense, blobs, make_data, mesh_of):
  result = probe(
    dense,
    make_data(blobs(160, 0), blobs(40, 1), 3),
    mesh_of(1),
    preset="simclr",
    batch_size=64,
    learning_rates=(0.1, 0.4),
    layer="late",
    grid=2,
  )
  wanted = {
    "task": "linear_probe",
    "preset": "simclr",
    "optimizer": "nesterov",
    "schedule": "cosine",
    "batch_size": 64,
    "epochs": 10,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "normalize": "none",
    "live": False,
    "layer": "late",
    "dimensions": 12,
    "data": "toy",
    "backbone": "dense",
    "key": [0, 0],
  }
  assert wanted.items() <= json.loads(json.dumps(result.protocol, allow_nan=False)).items()
  assert result.protocol["learning_rate_used"] == result.protocol["learning_rate"] / 4


def test_presets_are_the_published_ones():
  moco, simclr = linear_probe.PRESETS["moco"], linear_probe.PRESETS["simclr"]
  assert (moco.learning_rates, moco.optimizer, moco.schedule, moco.epochs, moco.batch_size) == (
    (30.0,),
    "sgd",
    "steps",
    100,
    256,
  )
  assert (simclr.learning_rates, simclr.optimizer, simclr.schedule, simclr.epochs, simclr.batch_size) == (
    (0.1,),
    "nesterov",
    "cosine",
    90,
    4096,
  )
  assert all(recipe.weight_decay == 0 and recipe.momentum == 0.9 for recipe in linear_probe.PRESETS.values())


def test_divergence_is_told_and_never_wins(dense, blobs, make_data, mesh_of):
  data = make_data(blobs(160, 0), blobs(40, 1), 3)
  result = probe(dense, data, mesh_of(1), learning_rates=(1e38, 1.0), weight_decay=1.0)
  assert result.protocol["learning_rate"] == 1.0
  assert result.protocol["sweep"][0] == {"learning_rate": 1e38, "validation_top1": None, "test_top1": None}
  with pytest.raises(ValueError, match=r"linear probe diverged at learning_rates=\(1e\+38,\); use smaller"):
    probe(dense, data, mesh_of(1), learning_rates=(1e38,), weight_decay=1.0)


@pytest.mark.parametrize(
  "options,message",
  [
    ({"preset": "mocco"}, "unknown preset 'mocco'; did you mean 'moco'"),
    ({"optimizer": "adam"}, "unknown optimizer 'adam'; known: lars, nesterov, sgd"),
    ({"schedule": "step"}, "unknown schedule 'step'; did you mean 'steps'"),
    ({"normalize": "batch_norm"}, "unknown normalize 'batch_norm'; did you mean 'batchnorm'"),
    ({"held_out": 1.0}, "held_out=1.0 must lie between 0 and 1"),
    ({"learning_rates": (0.8, -1.0)}, r"learning_rates=\(0.1, -0.125\), .* must be positive"),
    ({"warmup_epochs": 10}, "warmup_epochs=10 must be less than epochs=10"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    linear_probe.make(**{**QUICK, **options})


def test_what_live_needs_is_named(dense, blobs, make_data, mesh_of):
  data = make_data(blobs(96, 0), blobs(40, 1), 3)
  with pytest.raises(ValueError, match=r"data.validation to choose among learning_rates=\(1.0, 0.1\)"):
    probe(dense, data, mesh_of(1), live=True, learning_rates=(1.0, 0.1))
  with pytest.raises(ValueError, match="live=True needs data.train_steps"):
    probe(dense, data._replace(train_steps=None), mesh_of(1), live=True)
  with pytest.raises(ValueError, match="batch_size=36 is not divisible by 8 devices; use a multiple of 8"):
    probe(dense, data, mesh_of(8), live=True, batch_size=36)
  with pytest.raises(ValueError, match="batch_size=128 is more than the 96 training images"):
    probe(dense, data, mesh_of(1), live=True, batch_size=128)
  short = data._replace(train_steps=lambda size, start, stop, seed: data.train_steps(size, start, 4, seed))
  with pytest.raises(ValueError, match="train_steps ended after 4 of 30 steps"):
    probe(dense, short, mesh_of(1), live=True)
