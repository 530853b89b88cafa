"""Every picture of `ssl-jax show`: that it is drawn, and what is refused."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ssl_jax import methods
from ssl_jax.abilities import PretextTask
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, check
from ssl_jax.run.evaluate import evaluate
from ssl_jax.run.train import train
from ssl_jax.view.report import report
from ssl_jax.view.request import PictureRequest
from ssl_jax.view.show import show
from tests.recipes import save, shrunk, train_recipes

CONFIG = check(
  TrainConfig,
  recipe(
    method=dict(name="simclr"),
    encoder=dict(name="resnet10"),
    augment=dict(name="moco_v2", views=2, size=32),
    optimizer=dict(learning_rate=0.1),
    data=dict(name="sample", size=32),
    batch_size=16,
    epochs=1.0,
  ),
)


def test_gallery_is_drawn_and_depends_on_the_image(tmp_path, capsys):
  pixels = []
  for index in (0, 5):
    path = tmp_path / "deep" / f"{index}.png"
    show(["augmentations"], PictureRequest(CONFIG, output=str(path), index=index))
    pixels.append(np.asarray(Image.open(path).convert("RGB")))
    assert f"wrote {path}" in capsys.readouterr().out
  assert min(pixels[0].shape[:2]) > 500 and (pixels[0] != pixels[1]).any()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("mae")
  train(
    check(
      TrainConfig,
      recipe(
        method=dict(name="mae", decoder_width=8, decoder_depth=1, decoder_heads=2, norm_pix=False),
        encoder=dict(name="vit", width=16, depth=1, heads=2, patch=4),
        epochs=2.0,
        batch_size=32,
        augment=dict(name="supervised", views=1, size=16),
        optimizer=dict(name="adamw", learning_rate=1e-3),
        data=dict(name="synthetic", split="train[:128]", size=16, cache=True),
        checkpoint=dict(every_steps=4, keep=3),
      ),
    ),
    path,
  )
  return path


def test_reconstructions_are_drawn_at_ratios_and_over_epochs(workdir):
  sizes = {}
  for name, options in {"two": dict(ratios=(0.5, 0.75)), "own": {}, "epochs": dict(over_epochs=True)}.items():
    path = show(["reconstructions"], PictureRequest(workdir=str(workdir), images=3, **options))
    assert path.parent == workdir / "pictures"
    picture = np.asarray(Image.open(path).convert("RGB"))
    sizes[name] = picture.shape
    assert picture.std() > 20
  assert sizes["two"][1] > sizes["epochs"][1] > sizes["own"][1]  # 7, 4 and 4 columns, in 3, 3 and 2 groups


def test_a_report_draws_what_the_network_restores_or_says_why_not(workdir, capsys, tmp_path):
  drawn = workdir / "pictures" / "reconstructions.png"
  drawn.unlink(missing_ok=True)
  assert (
    "reconstructions</figcaption>" in report([workdir], tmp_path / "page.html").read_text() and drawn.exists()
  )
  shutil.copytree(workdir, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "pictures"))
  text = report([tmp_path / "copy"]).read_text()
  assert "<figcaption>" not in text and "the report has no reconstructions: " in capsys.readouterr().out


def test_a_picture_is_a_function_of_its_seed(workdir, tmp_path):
  drawn = [
    show(
      ["reconstructions"],
      PictureRequest(workdir=str(workdir), images=2, seed=seed, output=str(tmp_path / f"{i}.png")),
    )
    for i, seed in enumerate((0, 0, 1))
  ]
  assert drawn[0].read_bytes() == drawn[1].read_bytes() != drawn[2].read_bytes()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(ratios=(1.0,)), r"mask_ratio is 1.0; use a fraction in \(0, 1\)"),
    (dict(index=999_999), "--index=999999 --images=6: the data set has .* images; use 0 to"),
    (dict(images=999_999), "--images=999999: the data set has only .* images; use fewer"),
    (
      dict(workdir=""),
      "`ssl-jax show reconstructions` needs --workdir; for example ssl-jax show reconstructions",
    ),
    (dict(workdir="nowhere"), "nowhere is not the folder of a run"),
    (dict(split="tets"), "tets"),
  ],
)
def test_refusals_of_reconstructions(workdir, changes, message):
  with pytest.raises(ValueError, match=message):
    show(["reconstructions"], PictureRequest(**{"workdir": str(workdir), **changes}))


def small(name: str) -> TrainConfig:
  """A recipe of the method, in small, on images that have colours."""
  found = next(config for recipe, config in train_recipes().items() if recipe.startswith(f"pretrain/{name}"))
  return check(TrainConfig, shrunk(found, batch=16, size=16))


# tests/run/test_order.py and test_tracking.py draw the tasks that are made from clips
CLIPS = {"shuffle_and_learn", "tracking"}


@pytest.mark.parametrize("name", sorted({*methods.with_ability(PretextTask)} - CLIPS))
def test_a_pretext_task_is_drawn(name, tmp_path):
  path = show(["task"], PictureRequest(small(name), output=str(tmp_path / "task.png"), images=2))
  picture = np.asarray(Image.open(path).convert("RGB"))
  assert picture.std() > 20 and picture.shape[1] > picture.shape[0]  # two rows, three columns and more


def test_a_method_without_a_task_draws_none(tmp_path):
  with pytest.raises(
    ValueError,
    match="needs a network with the ability PretextTask, which 'simclr' does not have; methods with it: colo",
  ):
    show(["task"], PictureRequest(CONFIG, output=str(tmp_path / "x.png"), images=2))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
  path = tmp_path_factory.mktemp("colorization")
  save(small("colorization"), path)
  return path


def test_colours_are_drawn_for_the_runs_images_and_for_a_folder(colours, tmp_path):
  whole = np.asarray(
    Image.open(show(["colours"], PictureRequest(workdir=str(colours), images=3))).convert("RGB")
  )
  rng = np.random.default_rng(0)
  for i in range(2):
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.png")
  wanted = PictureRequest(
    workdir=str(colours),
    images=2,
    split="train",
    data_dir=str(tmp_path),
    size=24,
    output=str(tmp_path / "out.png"),
  )
  folder = np.asarray(Image.open(show(["colours"], wanted)).convert("RGB"))
  assert whole.std() > 20 and whole.shape[0] > folder.shape[0]


def test_colours_and_reconstructions_know_their_methods(colours, workdir):
  with pytest.raises(ValueError, match="was trained with method 'mae', which predicts no colours"):
    show(["colours"], PictureRequest(workdir=str(workdir)))
  with pytest.raises(
    ValueError, match="method 'colorization', which masks nothing; draw its output with `ssl-jax show col"
  ):
    show(["reconstructions"], PictureRequest(workdir=str(colours)))


def test_a_network_that_reconstructs_nothing_is_refused_with_what_to_do(tmp_path):
  save(small("moco"), tmp_path)
  with pytest.raises(
    ValueError, match="ability Restorer, which 'moco' does not have; .* mae, .*; train a net"
  ):
    show(["reconstructions"], PictureRequest(workdir=str(tmp_path)))
  assert not (tmp_path / "pictures").exists()


def test_layers_are_probed_under_names_of_their_own(colours, capsys):
  """And the pretext task of a run that learned nothing is measured beside them."""
  probe = dict(task="linear_probe", epochs=1, batch_size=64, learning_rates=(1.0,))
  table = evaluate(
    check(
      EvaluateConfig,
      recipe(
        EvaluateConfig,
        tasks=dict(
          pretext={}, early=dict(layer="stage1", grid=2, **probe), late=dict(layer="stage4", **probe)
        ),
        data=dict(train_split="train[:128]", test_split="test[:64]", cache=True),
        batch_size=64,
      ),
    ),
    colours,
  )
  assert set(table["colorization"]) == {"pretext", "early", "late"}
  assert 0 < table["colorization"]["pretext"]["auc"] < 1
  assert "early, top-1" in (shown := capsys.readouterr().out) and "pretext, accuracy" in shown


def test_corruptions_are_drawn(tmp_path):
  path = show(["corruptions"], PictureRequest(CONFIG, output=str(tmp_path / "c.png"), index=3))
  picture = np.asarray(Image.open(path).convert("RGB"))
  assert picture.std() > 20 and picture.shape[1] > 4 * picture.shape[0]  # sixteen columns, three rows
  with pytest.raises(ValueError, match="needs images of at least 32 pixels per side"):
    show(["corruptions"], PictureRequest(CONFIG, output=str(tmp_path / "c.png"), size=16))


def test_a_classifiers_errors_under_corruption_are_measured_and_drawn(tmp_path, capsys):
  config = small("supervised")
  save(config, tmp_path)
  table = evaluate(
    check(
      EvaluateConfig,
      recipe(
        EvaluateConfig,
        tasks=dict(robustness=dict(corruptions=("contrast", "fog"), severities=(1, 5), examples=100)),
        data=dict(train_split="train[:128]", test_split="test[:128]", size=32, cache=True),
        batch_size=64,
      ),
    ),
    tmp_path,
  )
  assert set(table["supervised"]["robustness"]) == {"error", "clean_error", "contrast", "fog"}
  assert "robustness, error" in capsys.readouterr().out
  assert (
    (tmp_path / "evaluations" / "step4" / "robustness-supervised.png").read_bytes().startswith(b"\x89PNG")
  )


@pytest.mark.parametrize(
  "words, output, index, message",
  [
    (["augmentation"], "x.png", 0, "takes one picture; did you mean 'augmentations'"),
    (
      [],
      "x.png",
      0,
      "takes one picture; known: adaptation, augmentations, colours, corruptions, errors, reconstructions, "
      "task",
    ),
    (["augmentations"], "x.jpg", 0, "x.jpg is not a .png file"),
    (["augmentations"], "x.png", 7992, "--index=7992: the data set has 7992 images; use 0 to 7991"),
  ],
)
def test_refusals(words, output, index, message, tmp_path):
  with pytest.raises(ValueError, match=re.escape(message)):
    show(words, PictureRequest(CONFIG, output=str(tmp_path / output), index=index))


ADAPT = dict(steps=2, copies=4, corruptions=("brightness",), examples=4)


def test_learning_on_a_test_image_is_drawn_and_errors_side_by_side(tmp_path):
  workdir = save(
    check(TrainConfig, shrunk(train_recipes()["transfer/vit_probe.py:cifar10_cpu"], batch=32, size=32)),
    tmp_path,
  )
  config = check(
    EvaluateConfig,
    recipe(
      EvaluateConfig,
      tasks=dict(first=dict(task="ttt", **ADAPT)),
      batch_size=8,
      augment=dict(name="none"),
      data=dict(test_split="test[:16]"),
    ),
  )
  path = show(["adaptation"], PictureRequest(config, workdir=str(workdir), corruption="contrast", index=2))
  assert min(np.asarray(Image.open(path)).shape[:2]) > 400
  evaluate(config, workdir)
  found = list((workdir / "evaluations" / "step4").glob("first-*.json"))
  assert found and found[0].with_suffix(".png").exists()
  bars = show(
    ["errors"], PictureRequest(evaluations=f"a={found[0]},b={found[0]}", output=str(tmp_path / "bars.png"))
  )
  assert min(np.asarray(Image.open(bars)).shape[:2]) > 300
  with pytest.raises(ValueError, match="there is no file 'none.json'"):
    show(["errors"], PictureRequest(evaluations="a=none.json", output=str(tmp_path / "bars.png")))


def test_a_network_that_learns_nothing_at_test_time_is_not_drawn(workdir):
  config = check(EvaluateConfig, recipe(EvaluateConfig, tasks=dict(ttt=ADAPT), augment=dict(name="none")))
  with pytest.raises(
    ValueError, match="ability Adaptable, which 'mae' does not have; methods with it: joint, .*mae"
  ):
    show(["adaptation"], PictureRequest(config, workdir=str(workdir)))
