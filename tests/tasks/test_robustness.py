"""Robustness: mCE, real networks on corrupted images, released files, independence of batches and devices."""

import functools
import hashlib
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax import corrupt, tasks
from ssl_jax.abilities import Classifier
from ssl_jax.augment.image_digest import key_of
from ssl_jax.tasks import corrupted, robustness
from ssl_jax.tasks.backbone import encoder_only
from ssl_jax.tasks.corrupted import first_of
from ssl_jax.tasks.robustness import ALEXNET, mean_corruption_error
from ssl_jax.view.errors import plot_errors
from tests import frozen

KEY = jax.random.key(0)


def test_alexnets_own_mce_is_1():
  errors = {name: dict(enumerate(row, 1)) for name, row in ALEXNET.items()}
  assert mean_corruption_error(errors, 0.435) == pytest.approx((1.0, 1.0))
  assert np.mean(ALEXNET["gaussian_noise"]) == pytest.approx(0.886428) and list(ALEXNET) == list(
    corrupt.CORRUPTIONS
  )
  half = {name: {s: e / 2 for s, e in row.items()} for name, row in errors.items()}
  assert mean_corruption_error(half, 0.2175)[0] == pytest.approx(0.5)
  assert mean_corruption_error(half, 0.2175)[1] == pytest.approx(0.5)


def test_an_mce_is_of_imagenets_classes_only(monkeypatch):
  """A stand-in for the 1,000 names, which are known by their digest only."""
  names = tuple(f"n{i:08}" for i in range(1000))
  digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
  errors, labels = {name: dict(enumerate(row, 1)) for name, row in ALEXNET.items()}, np.arange(1000)
  why = functools.partial(robustness.why_no_mce, errors, "imagenet")
  assert "1000 named classes are not ImageNet's 1,000" in why(names, labels)
  monkeypatch.setattr(robustness, "IMAGENET_CLASSES", digest)
  assert why(names[::-1], labels) == ""
  assert "the 100 named classes are not" in why(names[:100], labels[:100])
  assert "the 0 named classes are not" in why((), labels)
  assert "800 of ImageNet's 1,000 classes do not occur" in why(names, labels[:200])
  assert "'cifar', not of ImageNet-C" in robustness.why_no_mce(errors, "cifar", names, labels)
  del errors["fog"][5]
  assert "needs all severities" in why(names, labels)


def test_the_digest_is_of_the_names_that_tensorflow_datasets_lists():
  tfds = pytest.importorskip("tensorflow_datasets")
  listed = pathlib.Path(tfds.__file__).parent / "image_classification" / "imagenet_resized_labels.txt"
  names = sorted(listed.read_text().split())
  assert hashlib.sha256("\n".join(names).encode()).hexdigest() == robustness.IMAGENET_CLASSES


def test_other_classes_have_no_mce(bright, make_data, mesh_of, monkeypatch):
  """Two classes, all corruptions at all severities: the mean error, and the reason why there is no mCE."""
  monkeypatch.setattr(robustness, "ALEXNET", {"gaussian_noise": ALEXNET["gaussian_noise"]})
  found = tasks.make("robustness", corruptions=("gaussian_noise",), table="imagenet").run(
    bright, make_data(labelled(64), labelled(64), 2, class_names=("dark", "light")), mesh_of(1), KEY
  )
  assert "mce" not in found.scalars and "relative_mce" not in found.scalars
  assert found.protocol["mce_left_out"].startswith("the 2 named classes are not ImageNet's")


@pytest.fixture(scope="module")
def images(shared_data):
  return frozen.test_images(shared_data)


@pytest.mark.parametrize("name", frozen.NAMES)
def test_clean_accuracy_of_real_networks_is_the_stated_one_and_falls_with_severity(
  name, shared_data, images, mesh_of
):
  """All 7,500 images without corruption, and 500 of them with a noise and a blur."""
  network = frozen.backbone(shared_data, name)
  found = tasks.make("classification").run(network, frozen.data(*images, batch_size=750), mesh_of(1), KEY)
  assert round(7500 * found.scalars["top1"]) == frozen.RIGHT[name]
  few = tuple(part[:500] for part in images)
  harm = tasks.make("robustness", corruptions=("gaussian_noise", "gaussian_blur"), severities=(1, 3, 5)).run(
    network, frozen.data(*few), mesh_of(1), KEY
  )
  for row in harm.protocol["error"].values():
    errors = list(row.values())
    assert errors == sorted(errors) and errors[-1] > 1.5 * harm.scalars["clean_error"]
  assert "mce" not in harm.scalars and list(harm.scalars)[0] == "error"


def test_logits_of_real_networks_are_the_references(shared_data, images):
  for name in frozen.NAMES:
    network = frozen.backbone(shared_data, name)
    logits = jax.jit(network.method.encode)(*network.weights, images[0][:64].astype(np.float32) / 255)
    np.testing.assert_allclose(
      logits, np.load(shared_data / f"weights/{name}_reference.npz")["logits"][:64], atol=1e-3
    )


def labelled(count: int):
  """Images of one grey level each, and the classes that `bright` predicts for them."""
  draw = np.random.default_rng(0)
  levels = draw.integers(40, 216, count)
  return np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3)).astype(np.uint8), (
    levels > 127
  ).astype(np.int32)


@pytest.fixture
def bright(dense):
  """A classifier that distinguishes light and dark images."""

  def predict(params, model_state, images):
    light = images.mean((1, 2, 3)) - 0.5
    return jax.numpy.stack([-light, light], 1)

  return dense._replace(method=encoder_only(predict, {Classifier: Classifier(predict)}))


def test_figures_do_not_depend_on_batches_or_devices(bright, make_data, mesh_of):
  one, two = (
    tasks.make("robustness", corruptions=("impulse_noise", "contrast"), severities=(2, 5)).run(
      bright, make_data(labelled(90), labelled(90), 2, size=size), mesh_of(devices), KEY
    )
    for size, devices in ((64, 8), (32, 1))
  )
  assert one.scalars == two.scalars
  other = tasks.make("robustness", corruptions=("impulse_noise",), severities=(5,)).run(
    bright, make_data(labelled(90), labelled(90), 2), mesh_of(1), jax.random.key(1)
  )
  assert other.protocol["test_rows"] == 90


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_corruptions_are_drawn_with_the_implementation_of_the_key(kind, dense, make_data, mesh_of):
  key, (images, labels) = jax.random.key(3, impl=kind), labelled(2)
  spy = dense._replace(method=encoder_only(lambda params, state, images: images, {Classifier: ...}))
  chosen = corrupted.Corruptions(("gaussian_noise",), (5,), "imagenet", "", "", 0)
  _, (split,) = corrupted.corrupted_splits(
    chosen,
    spy,
    lambda params, state, images: images,
    make_data((images, labels), (images, labels), 2),
    mesh_of(1),
    key,
  )
  image = images[0] / np.float32(255)
  seen = split.backbone.method.encode(*split.backbone.weights, image[None])[0]
  drawn = key_of(key, image)
  np.testing.assert_array_equal(
    seen, corrupt.make("gaussian_noise", table="imagenet")(drawn, image, np.int32(5))
  )


def test_examples_limits_the_images(bright, make_data, mesh_of):
  found = tasks.make("robustness", corruptions=("brightness",), severities=(1,), examples=70).run(
    bright, make_data(labelled(90), labelled(90), 2), mesh_of(1), KEY
  )
  assert found.protocol["test_rows"] == 70 and "not the released files" in found.protocol["corruption_data"]


def test_examples_of_sorted_images_hold_every_class_in_proportion(bright, make_data, mesh_of, tmp_path):
  images, labels = labelled(90)
  order = np.argsort(labels, kind="stable")
  data = make_data((images[order], labels[order]), (images[order], labels[order]), 2)
  data = data._replace(test_sorted_size=90)
  for examples in (1, 7, 30, 89, 90, 200):
    found = np.concatenate([b["label"][b["valid"]] for b in first_of(data.test, examples, 90)()])
    assert len(found) == min(examples, 90)
    assert np.abs(np.bincount(found, minlength=2) - len(found) * np.bincount(labels) / 90).max() <= 1
  for name, level in (("n01", 30), ("n02", 220)):
    (tmp_path / "snow" / "4" / name).mkdir(parents=True)
    for i in range(3):
      Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(tmp_path / "snow" / "4" / name / f"{i}.png")
  task = tasks.make("robustness", corruptions=("snow",), severities=(4,), released=str(tmp_path), examples=2)
  found = task.run(bright, data, mesh_of(1), KEY)
  assert found.scalars["error"] == 0 and found.protocol["test_rows"] == 2


def test_released_arrays_are_read_severity_by_severity(bright, make_data, mesh_of, tmp_path):
  images, labels = labelled(90)
  dark = np.zeros_like(images)
  np.save(tmp_path / "labels.npy", np.tile(labels, 5))
  np.save(tmp_path / "fog.npy", np.concatenate([images, dark, images, dark, dark]))
  task = tasks.make("robustness", corruptions=("fog",), released=str(tmp_path))
  found = task.run(bright, make_data(labelled(90), labelled(90), 2), mesh_of(8), KEY)
  wrong = float(labels.mean())
  assert found.protocol["error"]["fog"] == {
    str(s): pytest.approx(0 if s in (1, 3) else wrong) for s in range(1, 6)
  }
  assert str(tmp_path) in found.protocol["corruption_data"]
  np.save(tmp_path / "labels.npy", labels)
  with pytest.raises(
    ValueError, match="fog.npy holds 450 images and labels.npy 90; both must hold five times"
  ):
    task.run(bright, make_data(labelled(90), labelled(90), 2), mesh_of(8), KEY)


def test_released_folders_are_read_by_class(bright, make_data, mesh_of, tmp_path):
  for name, level in (("n01", 30), ("n02", 220)):
    (tmp_path / "snow" / "4" / name).mkdir(parents=True)
    for i in range(3):
      Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(tmp_path / "snow" / "4" / name / f"{i}.png")
  task = tasks.make("robustness", corruptions=("snow",), severities=(4,), released=str(tmp_path))
  assert task.run(bright, make_data(labelled(90), labelled(90), 2), mesh_of(1), KEY).scalars["error"] == 0
  missing = tasks.make("robustness", corruptions=("snow", "fog"), severities=(4, 5), released=str(tmp_path))
  with pytest.raises(
    ValueError, match=r"lacks 3 of 4 files .*snow/5, .*fog/4.*Complete it, or name only the available"
  ):
    missing.run(bright, make_data(labelled(90), labelled(90), 2), mesh_of(1), KEY)


@pytest.mark.parametrize(
  "options, message",
  [
    (
      dict(corruptions=("gausian_noise",)),
      "no corruption is called 'gausian_noise'; did you mean 'gaussian_noise'",
    ),
    (dict(severities=(0, 1)), r"severities is \(0, 1\); use some of 1 to 5"),
    (dict(table="coco"), "unknown table 'coco'"),
    (dict(examples=-1), "examples is -1; use 0 for all"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    tasks.make("robustness", **options)


def test_a_network_without_classifier_is_refused(dense, make_data, mesh_of):
  with pytest.raises(
    ValueError,
    match="task 'robustness' needs .* Classifier, which 'dense' does not have; .*fine-tune it first",
  ):
    tasks.make("robustness").run(dense, make_data(labelled(64), labelled(64), 2), mesh_of(1), KEY)


def test_errors_are_drawn(tmp_path):
  plot_errors(
    tmp_path / "errors.png", {name: dict(enumerate(row, 1)) for name, row in ALEXNET.items()}, title="AlexNet"
  )
  assert np.asarray(Image.open(tmp_path / "errors.png").convert("RGB")).std() > 20
