"""Import and export of weights: exact round trips, published networks, every tensor accounted for."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import convert, parallel
from ssl_jax.abilities import Classifier, Restorer
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.convert import Options, export_weights, files, import_weights, kinds
from ssl_jax.core import DataSpec, Weights
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.restore import restore
from ssl_jax.run.train import train
from ssl_jax.view import reconstructions
from ssl_jax.view.report import report
from ssl_jax.view.request import PictureRequest
from tests.frozen import RIGHT
from tests.frozen import test_images as real_images

VIT = dict(name="vit", width=32, depth=2, heads=2, patch=4)
NETWORKS = {  # method, encoder, views, augment
  "moco_v2": (
    dict(name="moco", dim=8, mlp=True, queue_size=32),
    dict(name="resnet10", width=8, stem="small"),
    2,
    "moco_v2",
  ),
  "moco_v1": (
    dict(name="moco", dim=8, queue_size=32),
    dict(name="resnet50", width=4, stem="cifar"),
    2,
    "moco_v1",
  ),
  "simclr": (dict(name="simclr"), dict(name="resnet10", width=4, stem="small"), 2, "moco_v2"),
  "simclr_vit": (dict(name="simclr"), dict(VIT, depth=1), 2, "moco_v2"),
  "classifier": (
    dict(name="supervised"),
    dict(VIT, positions="learned", pool="fc_norm", image_size=16),
    1,
    "none",
  ),
  "mae": (
    dict(name="mae", decoder_width=16, decoder_depth=1, decoder_heads=2),
    dict(VIT, depth=1),
    1,
    "none",
  ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A function name -> the folder of a run that trained this network for one step."""
  made = {}

  def make(name: str):
    if name not in made:
      method, encoder, views, augment = NETWORKS[name]
      made[name] = tmp_path_factory.mktemp(name) / "run"
      train(
        check(
          TrainConfig,
          recipe(
            method=method,
            encoder=encoder,
            augment=dict(name=augment, views=views, size=16),
            optimizer=dict(learning_rate=0.1),
            data=dict(name="synthetic", split="train[:16]", size=16),
            batch_size=16,
            epochs=1.0,
          ),
        ),
        made[name],
      )
    return made[name]

  return make


def weights_of(folder):
  backbone = restore(folder, parallel.make_mesh()).backbone
  return jax.device_get(tuple(backbone.weights))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_round_trip_is_exact_and_the_copy_is_evaluated_alike(name, suffix, runs, tmp_path):
  run = runs(name)
  file = export_weights(run, tmp_path / f"weights{suffix}")
  (tmp_path / "plain").touch()
  assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode  # permissions of any new file
  import_weights("npz", file, tmp_path / "copy")
  jax.tree.map(np.testing.assert_array_equal, weights_of(tmp_path / "copy"), weights_of(run))
  if suffix == ".npz" and name in ("moco_v2", "mae"):
    found = [
      evaluate(
        check(
          EvaluateConfig,
          recipe(
            EvaluateConfig,
            tasks=dict(knn=dict(k=3, also=())),
            data=dict(train_split="train[:64]", test_split="test[:32]"),
            batch_size=16,
          ),
        ),
        folder,
      )
      for folder in (run, tmp_path / "copy")
    ]
    assert found[0] == found[1]
    assert "npz from weights.npz" in report([tmp_path / "copy"], draw=False).read_text()


def test_names_and_layout_are_those_of_pytorchs_libraries(runs, tmp_path):
  shapes = {
    name: {
      key: value.shape
      for key, value in files.read_tensors(export_weights(runs(name), tmp_path / f"{name}.npz"))[0].items()
    }
    for name in NETWORKS
  }
  plain, vit, mae = shapes["moco_v1"], shapes["classifier"], shapes["mae"]
  assert {
    "conv1.weight": (4, 3, 3, 3),
    "layer1.0.downsample.0.weight": (16, 4, 1, 1),
    "layer4.2.bn3.running_var": (128,),
    "layer2.0.conv2.weight": (8, 8, 3, 3),
    "fc.weight": (8, 128),
    "fc.bias": (8,),
  }.items() <= plain.items() and len(plain) == 53 + 53 * 4 + 2  # convolutions, norms, fc
  assert shapes["moco_v2"]["fc.0.weight"] == (64, 64) and shapes["moco_v2"]["fc.2.weight"] == (8, 64)
  assert {
    "fc.0.weight": (32, 32),
    "fc.1.running_var": (32,),
    "fc.3.weight": (128, 32),
    "fc.4.running_mean": (128,),
  }.items() <= shapes["simclr"].items()
  assert {
    "cls_token": (1, 1, 32),
    "pos_embed": (1, 17, 32),
    "patch_embed.proj.weight": (32, 3, 4, 4),
    "blocks.1.attn.qkv.weight": (96, 32),
    "blocks.0.mlp.fc1.weight": (128, 32),
    "fc_norm.weight": (32,),
    "head.weight": (10, 32),
  }.items() <= vit.items()
  assert {
    "decoder_embed.weight": (16, 32),
    "mask_token": (1, 1, 16),
    "decoder_blocks.0.attn.proj.bias": (16,),
    "decoder_pred.weight": (48, 16),
    "decoder_pos_embed": (1, 17, 16),
  }.items() <= mae.items()


@pytest.mark.parametrize("name", ["resnet20", "resnet8"])
def test_real_networks_give_their_reference_logits_and_accuracy(name, shared_data, tmp_path):
  import_weights("npz", shared_data / f"weights/{name}_cifar10.npz", tmp_path / "run")
  one = parallel.make_mesh(jax.devices()[:1])  # eight simulated ones would all compute the same
  backbone = restore(tmp_path / "run", one).backbone
  images, labels = real_images(shared_data)
  predict = jax.jit(backbone.method.abilities[Classifier].predict)
  logits = np.concatenate(
    [predict(*backbone.weights, images[i : i + 500].astype(np.float32) / 255) for i in range(0, 7500, 500)]
  )
  np.testing.assert_allclose(
    logits[:256], np.load(shared_data / f"weights/{name}_reference.npz")["logits"], atol=1e-4
  )
  assert (logits.argmax(1) == labels).sum() == RIGHT[name]


def published(runs, tmp_path, name: str) -> dict[str, np.ndarray]:
  """The tensors of a run, named as in the checkpoints that the authors published."""
  tensors, _ = files.read_tensors(export_weights(runs(name), tmp_path / f"{name}.npz"))
  if name.startswith("moco"):
    both = {
      f"module.{part}.{key}": value for part in ("encoder_q", "encoder_k") for key, value in tensors.items()
    }
    return {
      **both,
      "module.queue": np.zeros((8, 32), np.float32),
      "module.queue_ptr": np.zeros(1, np.int64),
      "module.encoder_q.bn1.num_batches_tracked": np.array(3),
    }
  return tensors


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2"])
def test_a_published_moco_brings_both_its_encoders(name, runs, tmp_path):
  tensors = published(runs, tmp_path, name)
  tensors["module.encoder_k.bn1.running_mean"] = tensors["module.encoder_k.bn1.running_mean"] + 1
  np.savez(tmp_path / "file.npz", **tensors)
  import_weights(name, tmp_path / "file.npz", tmp_path / "run")
  query, keys = (
    restore(tmp_path / "run", parallel.make_mesh(), weights=which).backbone.weights.model_state
    for which in ("params", "ema")
  )
  difference = (
    keys["encoder"]["batch_stats"]["norm_stem"]["mean"] - query["encoder"]["batch_stats"]["norm_stem"]["mean"]
  )
  np.testing.assert_allclose(difference, 1, atol=1e-5)


def test_a_mae_without_decoder_is_an_encoder_and_no_more(runs, tmp_path):
  tensors = published(runs, tmp_path, "mae")
  encoder = {name: value for name, value in tensors.items() if "decoder" not in name and name != "mask_token"}
  np.savez(tmp_path / "encoder.npz", **encoder)
  np.savez(tmp_path / "full.npz", **tensors)
  options = Options(heads=2)
  import_weights("mae", tmp_path / "encoder.npz", tmp_path / "part", options)
  import_weights("mae_full", tmp_path / "full.npz", tmp_path / "whole", options._replace(target="pixels"))
  part, whole = (restore(tmp_path / name, parallel.make_mesh()) for name in ("part", "whole"))
  assert set(part.backbone.weights.params) == {"encoder"} and set(whole.backbone.weights.params) == {
    "encoder",
    "decoder",
  }
  assert Restorer not in part.method.abilities and Restorer in whole.method.abilities
  images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
  np.testing.assert_array_equal(
    *(
      np.asarray(run.backbone.method.encode(run.backbone.weights.params, {"encoder": {}}, images))
      for run in (part, whole)
    )
  )
  with pytest.raises(ValueError, match="is not of --kind=mae_full"):
    import_weights("mae_full", tmp_path / "encoder.npz", tmp_path / "none", options)
  with pytest.raises(
    ValueError, match="full.npz does not fit the network: unused decoder_blocks.0.attn.proj.bias"
  ):
    import_weights("mae", tmp_path / "full.npz", tmp_path / "none", options)


@pytest.mark.parametrize("target, norm_pix", [("pixels", False), ("normalized", True)])
def test_the_target_of_a_decoder_must_be_told_and_the_picture_says_it(target, norm_pix, runs, tmp_path):
  tensors = published(runs, tmp_path, "mae")
  np.savez(tmp_path / "full.npz", **tensors)
  options = Options(heads=2, target=target)
  import_weights("mae_full", tmp_path / "full.npz", tmp_path / "run", options)
  run = restore(tmp_path / "run", parallel.make_mesh(jax.devices()[:1]))
  assert run.config.method["norm_pix"] is norm_pix
  images = np.random.default_rng(0).uniform(0, 0.2, (2, 16, 16, 3)).astype(np.float32)
  made = run.backbone.ability(Restorer, "a test", cure="").reconstruct(
    *run.backbone.weights, images=jnp.asarray(images), key=jax.random.key(0), mask_ratio=0.75
  )
  means = [np.asarray(x).reshape(2, 4, 4, 4, 4, 3).mean((2, 4)) for x in (made.predicted, images)]
  # A patch of normalised pixels is shown with the true mean and deviation, whatever the network predicts.
  assert (np.abs(means[0] - means[1]).mean() < 0.1) == norm_pix
  caption = reconstructions._title(run, PictureRequest(workdir=str(tmp_path / "run")))
  assert caption.endswith("of the true patches" if norm_pix else "pixels as predicted")


def test_a_target_is_required_where_the_file_does_not_tell_it_and_refused_elsewhere(runs, tmp_path):
  file = export_weights(runs("mae"), tmp_path / "mae.npz")
  np.savez(tmp_path / "bare.npz", **published(runs, tmp_path, "mae"))
  for kind, name, target, message in (
    ("mae_full", "bare", "", "pass --target=pixels .*or --target=normalized"),
    ("npz", "bare", "", "bare.npz: .*pass --target=pixels .*or --target=normalized"),
    ("mae_full", "bare", "pixel", "--target=pixel: no such target.*pixels"),
    ("mae", "bare", "pixels", "--kind=mae imports no decoder .*leave --target out, or pass --kind=mae_full"),
    ("npz", file.stem, "pixels", "method 'mae' has norm_pix=True; leave --target out"),
  ):
    with pytest.raises(ValueError, match=message):
      import_weights(kind, tmp_path / f"{name}.npz", tmp_path / "run", Options(heads=2, target=target))
    assert not (tmp_path / "run").exists()
  import_weights("npz", file, tmp_path / "run")  # the file holds the config


def test_a_class_tokens_position_is_added_and_pixels_must_be_told(runs, tmp_path):
  tensors = published(runs, tmp_path, "classifier")
  tensors["pos_embed"] = tensors["pos_embed"] + np.float32(0.5)
  np.savez(tmp_path / "file.npz", **tensors)
  with pytest.raises(ValueError, match="pass --normalize=imagenet .* or --normalize=signed"):
    import_weights("timm_vit", tmp_path / "file.npz", tmp_path / "run", Options(heads=2))
  import_weights("timm_vit", tmp_path / "file.npz", tmp_path / "run", Options(heads=2, normalize="signed"))
  run = restore(tmp_path / "run", parallel.make_mesh())
  assert (
    run.config.encoder["normalize"] == "signed"
    and run.config.encoder["positions"] == "learned"
    and run.config.encoder["pool"] == "fc_norm"
  )
  np.testing.assert_allclose(
    run.backbone.weights.params["encoder"]["cls"], tensors["cls_token"] + 0.5, atol=1e-6
  )


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.pop("layer1.0.bn1.bias"), "missing layer1.0.bn1.bias"),
    (lambda t: t.update({"layer9.extra": np.zeros(3)}), r"unused layer9.extra \[3\]"),
    (lambda t: t.update({"fc.bias": np.zeros(7, np.float32)}), r"fc.bias has shape \[7\], expected \[10\]"),
    (
      lambda t: t.update({"conv1.weight": np.zeros((16, 3, 3), np.float32)}),
      r"conv1.weight has shape \[16, 3, 3\], expected \[N, 3, N, N\]",
    ),
  ],
)
def test_every_tensor_is_accounted_for_and_nothing_is_written(change, message, shared_data, tmp_path):
  tensors = dict(np.load(shared_data / "weights/resnet20_cifar10.npz"))
  tensors = {name.replace("linear.", "fc."): value for name, value in tensors.items()}
  change(tensors)
  np.savez(tmp_path / "file.npz", **tensors)
  with pytest.raises(ValueError, match=message):
    import_weights("npz", tmp_path / "file.npz", tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "content, suffix, message",
  [
    (b"", ".npz", "cannot be read as arrays"),
    (b"\x93NUMPY", ".npz", "cannot be read as arrays"),
    (b"PK\3\4 broken", ".npz", "cannot be read as arrays"),
    (b"\0" * 40, ".safetensors", "cannot be read as safetensors"),
    (b"x", ".h5", "files of this type cannot be read; use .npz, .safetensors"),
    (None, ".npz", "there is no such file"),
  ],
)
def test_broken_files_are_named(content, suffix, message, tmp_path):
  path = tmp_path / f"file{suffix}"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    import_weights("npz", path, tmp_path / "run")


def test_arrays_of_objects_are_not_opened(tmp_path):
  np.savez(tmp_path / "file.npz", conv1=np.array([print], dtype=object))
  with pytest.raises(ValueError, match="cannot be read as arrays: .*allow_pickle=False"):
    import_weights("npz", tmp_path / "file.npz", tmp_path / "run")


@pytest.mark.parametrize("kind", [*kinds.KINDS])
def test_a_file_of_something_else_is_refused_by_every_kind(kind, tmp_path):
  np.savez(tmp_path / "file.npz", weights=np.zeros(3, np.float32))
  with pytest.raises(
    ValueError, match=f"this file is not of --kind={kind}: it has no tensor .*, but weights"
  ):
    import_weights(kind, tmp_path / "file.npz", tmp_path / "run")


def test_misspelt_kinds_and_folders_that_hold_something_are_refused(runs, tmp_path):
  file = export_weights(runs("mae"), tmp_path / "mae.npz")
  np.savez(
    tmp_path / "bare.npz", **{name: value for name, value in np.load(file).items() if name != files.NOTE}
  )
  with pytest.raises(ValueError, match="--kind=mea: no such kind.*mae"):
    import_weights("mea", tmp_path / "bare.npz", tmp_path / "run")
  with pytest.raises(ValueError, match="is not empty; name a new folder"):
    import_weights("mae", file, tmp_path)
  with pytest.raises(
    ValueError, match="--output=x.onnx: its suffix is unknown; use .npz, .safetensors or .stablehlo"
  ):
    export_weights(runs("mae"), "x.onnx")


def test_an_imported_run_is_started_from_and_not_gone_on_with(runs, tmp_path):
  import_weights("npz", export_weights(runs("mae"), tmp_path / "mae.npz"), tmp_path / "mae")
  config = json.loads((tmp_path / "mae" / "starts.jsonl").read_text())["config"]
  with pytest.raises(ValueError, match="holds imported weights.*--config.start.workdir="):
    train(check(TrainConfig, {**config, "data": {**config["data"], "split": "train[:16]"}}), tmp_path / "mae")
  state = train(
    check(
      TrainConfig,
      recipe(
        method=dict(name="supervised"),
        encoder=dict(VIT, depth=1),
        augment=dict(name="none", views=1, size=16),
        optimizer=dict(learning_rate=1e-9),
        data=dict(name="synthetic", split="train[:16]", size=16),
        batch_size=16,
        epochs=1.0,
        start=dict(workdir=str(tmp_path / "mae")),
      ),
    ),
    tmp_path / "tuned",
  )
  np.testing.assert_allclose(
    state.params["encoder"]["embed"]["kernel"],
    weights_of(runs("mae"))[0]["encoder"]["embed"]["kernel"],
    atol=1e-6,
  )


@pytest.mark.parametrize("name", ["moco_v2", "classifier"])
def test_the_program_runs_with_jax_alone(name, runs, tmp_path):
  export_weights(runs(name), tmp_path / "encoder.stablehlo")
  images = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
  np.save(tmp_path / "images.npy", images)
  code = (
    "import pathlib, sys, numpy, jax.export\n"
    "encode = jax.export.deserialize(bytearray(pathlib.Path('encoder.stablehlo').read_bytes())).call\n"
    "images = numpy.load('images.npy')\n"
    "numpy.savez('found.npz', three=encode(images), one=encode(images[:1]))\n"
    "assert not [name for name in sys.modules if name.split('.')[0] in ('ssl_jax', 'flax')]\n"
  )
  subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
  backbone = restore(runs(name), parallel.make_mesh()).backbone
  expected = backbone.method.encode(*backbone.weights, jnp.asarray(images))
  found = np.load(tmp_path / "found.npz")
  np.testing.assert_allclose(found["three"], expected, atol=1e-5)
  np.testing.assert_allclose(found["one"], expected[:1], atol=1e-5)


def torch_tensors(method: dict, encoder: dict) -> tuple[list, dict]:
  """(the pytree paths, the tensors of an export) of a network whose weights are zeros."""
  config = check(
    TrainConfig,
    recipe(
      method=method,
      encoder=encoder,
      augment=dict(name="none", views=1, size=16),
      optimizer=dict(learning_rate=0.1),
      data=dict(name="synthetic", split="train[:16]", size=16),
      batch_size=16,
      epochs=1.0,
    ),
  )
  parts = convert.assemble(config, DataSpec(16, 10, 16))
  abstract, _ = convert.abstract_state(parts, config, parallel.make_mesh(jax.devices()[:1]))
  weights = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, np.float32), Weights(abstract.params, abstract.model_state)
  )
  return convert._leaves(weights), convert._torch_tensors(weights, config)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18", "resnet50"])
def test_every_leaf_of_a_resnet_is_a_tensor_of_its_own(name):
  leaves, tensors = torch_tensors(dict(name="supervised"), dict(name=name))
  assert len(leaves) == len(tensors) and sum(leaf.size for _, leaf in leaves) == sum(
    tensor.size for tensor in tensors.values()
  )


def test_norms_and_heads_without_names_in_pytorch_are_refused():
  group = dict(name="resnet10", width=8, norm="group", channel_groups=4)
  with pytest.raises(ValueError, match="GroupNorm_0.* has no counterpart in PyTorch's libraries"):
    torch_tensors(dict(name="supervised"), group)
