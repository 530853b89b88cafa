"""Warm starts from the encoder of another run: what is taken, what is new, what is refused."""

import re

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.restore import restore
from ssl_jax.run.train import train
from ssl_jax.run.warm_start import FREE, start_from
from tests.recipes import save, shrunk, train_recipes

VIT = dict(name="vit", width=16, depth=2, heads=2, patch=4)
DATA = dict(name="synthetic", split="train[:128]", size=16, cache=True)
COMMON = dict(data=DATA, batch_size=32, checkpoint=dict(every_steps=4, keep=3))
STRONG = dict(augment=dict(name="finetune", views=1, size=16, scale=(0.6, 1.0)))  # slow to compile


def mae(**changes) -> TrainConfig:
  """The config of a small masked autoencoder."""
  return check(
    TrainConfig,
    recipe(
      **{
        **COMMON,
        **dict(
          method=dict(name="mae", decoder_width=8, decoder_depth=1, decoder_heads=2),
          encoder=VIT,
          epochs=2.0,
          augment=dict(name="none", views=1, size=16),
          optimizer=dict(name="adamw", learning_rate=1e-3),
        ),
        **changes,
      }
    ),
  )


def finetune(workdir, **changes) -> TrainConfig:
  """The config of the published fine-tuning recipe, for a small network."""
  start = dict(workdir=str(workdir), **changes.pop("start", {}))
  encoder = {
    **VIT,
    "pool": "fc_norm",
    "positions": "sincos_trained",
    "drop_path": 0.1,
    **changes.pop("encoder", {}),
  }
  return check(
    TrainConfig,
    recipe(
      **{
        **COMMON,
        **dict(
          method=dict(name="supervised", mixup=0.8, cutmix=1.0, ema=0.8, label_smoothing=0.1),
          encoder=encoder,
          start=start,
          augment=dict(name="none", views=1, size=16),
          epochs=25.0,
          optimizer=dict(
            name="adamw", learning_rate=5e-3, layer_decay=0.75, weight_decay=0.05, weight_decay_on="weights"
          ),
        ),
        **changes,
      }
    ),
  )


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """Uses one device: programs for eight take long to compile, and these tests do not depend on the number."""
  whole = parallel.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, "make_mesh", lambda devices=None: whole(jax.devices()[:1]))
    yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return save(mae(), tmp_path_factory.mktemp("mae"), steps=(4, 8))


def probe(workdir, **options) -> TrainConfig:
  """The config of a classifier on the frozen autoencoder."""
  return check(
    TrainConfig,
    recipe(
      **{
        **COMMON,
        **dict(
          method=dict(
            name="mae_probe",
            head_width=8,
            head_depth=1,
            head_heads=2,
            decoder_width=8,
            decoder_depth=1,
            decoder_heads=2,
          )
          | options,
          encoder=VIT,
          start=dict(workdir=str(workdir)),
          epochs=2.0,
          augment=dict(name="none", views=1, size=16),
          optimizer=dict(name="adamw", learning_rate=1e-2, weight_decay=0.2),
        ),
      }
    ),
  )


def test_a_frozen_network_is_taken_whole_and_never_moves(workdir, tmp_path):
  train(probe(workdir), tmp_path)
  mesh = parallel.make_mesh()
  source, found = restore(workdir, mesh).backbone, restore(tmp_path, mesh)
  frozen = found.backbone.weights.model_state["frozen"]  # includes the decoder
  jax.tree.map(np.testing.assert_array_equal, frozen, source.weights.params)
  assert set(found.backbone.weights.params) == {"head"}
  before, after = (
    jax.tree.leaves(backbone.weights.params) for backbone in (found.untrained(), found.backbone)
  )
  assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(after, before, strict=True))
  with pytest.raises(
    ValueError, match=r"does not fit: .*decoder/embed/kernel is \(16, 8\), expected \(16, 4\)"
  ):
    train(probe(workdir, decoder_width=4, decoder_heads=1), tmp_path / "other")


@pytest.fixture(scope="module")
def tuned(workdir, tmp_path_factory):
  path = tmp_path_factory.mktemp("tuned")
  train(finetune(workdir, **STRONG), path)
  return path


def first_state(config: TrainConfig):
  mesh = parallel.make_mesh()
  _, init = abstract_state(assemble(config, DataSpec(128, 10, 32)), config, mesh)
  fresh = init()
  return fresh, *start_from(fresh, config, mesh)


def test_encoder_is_taken_and_the_rest_is_new(workdir):
  trained = restore(workdir, parallel.make_mesh()).backbone.weights.params["encoder"]
  fresh, state, note = first_state(finetune(workdir))
  parts = "new: fc_norm, head, positions; not used: decoder, norm"
  assert note == f"starts from the encoder of {workdir} at step 8; {parts}"
  same = jax.tree.map(
    lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()),
    state.params["encoder"]["blocks"],
    trained["blocks"],
  )
  assert all(jax.tree.leaves(same))
  np.testing.assert_array_equal(state.params["encoder"]["cls"], trained["cls"])
  np.testing.assert_array_equal(
    state.params["head"]["Dense_0"]["kernel"], fresh.params["head"]["Dense_0"]["kernel"]
  )
  # The moving average starts from the same weights.
  jax.tree.map(np.testing.assert_array_equal, state.extra.ema.params, state.params)
  assert (
    np.asarray(fresh.params["encoder"]["embed"]["kernel"]) != np.asarray(trained["embed"]["kernel"])
  ).any()


def test_what_does_not_change_the_weights_meaning_may_differ(workdir):
  config = finetune(workdir, encoder=dict(relative_positions=True))
  _, state, note = first_state(config)
  assert "; new: fc_norm, head, positions, relative_columns, relative_rows; not used: decoder, norm" in note
  assert state.params["encoder"]["relative_rows"].shape == (2, 2, 7)
  assert {"dilate", "output_stride", "relative_positions"} <= {*FREE}


def test_options_with_several_values_are_compared_and_dropout_may_differ(tmp_path):
  """A checkpoint holds [32] in the place of (32,)."""
  config = check(
    TrainConfig,
    recipe(
      method=dict(name="supervised"),
      encoder=dict(name="caffenet", width=16, fc=(32,), groups=1, stem_stride=2),
      augment=dict(name="none", views=1, size=64),
      optimizer=dict(learning_rate=0.1),
      data=dict(name="synthetic", size=64),
      batch_size=8,
      epochs=1.0,
    ),
  )
  save(config, tmp_path)
  again = {"start": dict(workdir=str(tmp_path)), "encoder": {**config.encoder, "dropout": 0.5}}
  assert "starts from the encoder" in first_state(check(TrainConfig, {**config.__dict__, **again}))[2]
  again["encoder"]["fc"] = (32, 32)
  with pytest.raises(ValueError, match=re.escape("config.encoder.fc: [32] -> [32, 32]")):
    first_state(check(TrainConfig, {**config.__dict__, **again}))


def test_older_step_by_name(workdir):
  assert " at step 4; " in first_state(finetune(workdir, start=dict(step=4)))[2]


@pytest.mark.parametrize(
  "encoder, message",
  [
    (
      dict(normalize="cifar10"),
      "holds a different encoder:\n  config.encoder.normalize: imagenet -> cifar10\nUse the old values",
    ),
    (dict(depth=3), "config.encoder.depth: 2 -> 3"),
    (dict(positions="learned"), "config.encoder.positions: sincos -> learned"),
  ],
)
def test_another_encoder_is_refused_with_the_differences(workdir, encoder, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    first_state(finetune(workdir, encoder=encoder))


def test_positions_of_another_image_size_are_refused(tuned):
  with pytest.raises(
    ValueError, match=r"does not fit in its encoder: encoder/positions is \(16, 16\), expected \(4, 16\)"
  ):
    first_state(finetune(tuned, augment=dict(name="none", views=1, size=8)))


def test_what_is_not_there_is_refused(workdir, tmp_path):
  with pytest.raises(ValueError, match="is not the folder of a run; train one first"):
    first_state(finetune(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match="holds no moving average"):
    first_state(finetune(workdir, start=dict(weights="ema")))
  with pytest.raises(ValueError, match=r"no checkpoint of step 5; it has \[4, 8\]"):
    first_state(finetune(workdir, start=dict(step=5)))


def test_fine_tuned_classifier_and_its_average_are_measured(tuned):
  measure = lambda **changes: evaluate(
    check(
      EvaluateConfig,
      recipe(
        EvaluateConfig,
        **{
          **dict(tasks=dict(classification={}), data=dict(test_split="test[:256]"), batch_size=64),
          **changes,
        },
      ),
    ),
    tuned,
  )
  trained, average = (measure(weights=which)["supervised"]["classification"] for which in ("params", "ema"))
  assert min(trained["top1"], average["top1"]) > 0.2  # ten classes
  kernels = [
    np.asarray(
      restore(tuned, parallel.make_mesh(), weights=which).backbone.weights.params["head"]["Dense_0"]["kernel"]
    )
    for which in ("params", "ema")
  ]
  assert np.abs(kernels[0] - kernels[1]).max() > 0
  with pytest.raises(
    ValueError, match="'raw pixels' does not have; .*fine-tune it first .*use the tasks knn or linear_probe"
  ):
    measure(baselines=("pixels",))


def test_a_run_that_goes_on_starts_from_nothing_again(workdir, tuned, capsys):
  train(finetune(workdir, **STRONG), tuned)
  said = "".join(capsys.readouterr())
  assert "is finished at step 100 of 100" in said and "starts from the encoder" not in said


def test_conv_network_starts_from_the_average_of_a_contrastive_one(tmp_path):
  resnet = dict(name="resnet10", width=8, stem="small")
  moco = dict(name="moco", dim=16, mlp=True, queue_size=64, momentum=0.9, temperature=0.2)
  save(
    mae(
      method=moco,
      encoder={**resnet, "batch_groups": 2},
      augment=dict(name="none", views=2, size=16),
      optimizer=dict(learning_rate=0.03),
    ),
    tmp_path,
  )
  config = check(
    TrainConfig,
    recipe(
      **COMMON,
      method=dict(name="supervised"),
      encoder=resnet,
      epochs=1.0,
      start=dict(workdir=str(tmp_path), weights="ema"),
      optimizer=dict(learning_rate=0.03),
      augment=dict(name="none", views=1, size=16),
    ),
  )
  _, state, note = first_state(config)
  assert note.endswith("at step 4; new: head; not used: head")
  average = restore(tmp_path, parallel.make_mesh(), weights="ema").backbone.weights
  for part, found in ((state.params, average.params), (state.model_state, average.model_state)):
    assert jax.tree.leaves(part["encoder"])
    jax.tree.map(np.testing.assert_array_equal, part["encoder"], found["encoder"])


def test_a_trained_segmenter_goes_on_with_a_fourth_channel(tmp_path):
  """Its encoder gets zeros for the visibility, and its head is taken as it is; the other head is new."""
  plain, joint = (
    check(TrainConfig, shrunk(train_recipes()[f"pretrain/joint_segmentation.py:{name}"], batch=8, size=16))
    for name in ("camvid_plain", "camvid")
  )
  workdir = save(plain, tmp_path / "plain")
  old = restore(workdir, parallel.make_mesh()).backbone.weights.params
  start = {"workdir": str(workdir), "parts": ("encoder", "head")}
  _, state, note = first_state(check(TrainConfig, {**joint.__dict__, "start": start}))
  assert note == f"starts from the encoder and head of {workdir} at step 4; new: decoder"
  jax.tree.map(np.testing.assert_array_equal, state.params["head"], old["head"])
  kernel, wide = (params["encoder"]["conv_stem"]["kernel"] for params in (old, state.params))
  np.testing.assert_array_equal(wide[:, :, :3], kernel)
  assert wide.shape[2] == 4 and not np.any(wide[:, :, 3])
  with pytest.raises(
    ValueError, match="config.start.parts names 'decoder', but .*plain has only encoder, head"
  ):
    first_state(check(TrainConfig, {**joint.__dict__, "start": {**start, "parts": ("decoder",)}}))
  with pytest.raises(ValueError, match="config.start.parts is .*name each part once"):
    check(TrainConfig, {**joint.__dict__, "start": {**start, "parts": ("head", "head")}})
