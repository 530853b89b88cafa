"""The wheel holds all that the package needs, recipes included, and works in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A folder with what the wheel installs."""
  root = tmp_path_factory.mktemp("wheel")
  ignored = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "tests", "docs", "__pycache__")
  shutil.copytree(REPOSITORY, root / "source", ignore=ignored)
  command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
  subprocess.run([*command, "--wheel-dir", root, root / "source"], check=True, capture_output=True, text=True)
  (wheel,) = root.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(root / "site")
  return root / "site"


def run(installed, folder, *words):
  environment = {**os.environ, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
  return subprocess.run(
    [sys.executable, "-P", "-m", "ssl_jax", *words],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
  )


def test_all_recipes_are_installed(installed, tmp_path):
  found = run(installed, tmp_path, "recipes")
  names = {
    path.relative_to(REPOSITORY / "configs").as_posix() for path in (REPOSITORY / "configs").glob("*/*.py")
  }
  assert {line.split()[0] for line in found.stdout.splitlines()} == names, found.stderr
  assert (installed / "ssl_jax" / "py.typed").exists()


def test_an_installed_recipe_trains_in_an_empty_folder(installed, tmp_path):
  short = ["--config.epochs=0.01", "--config.batch_size=8", "--config.method.queue_size=16"]
  short += [
    "--config.encoder.batch_groups=1",
    "--config.optimizer.warmup_epochs=0.0",
    "--config.data.split=train[:80]",
  ]
  found = run(installed, tmp_path, "train", "--config=pretrain/moco_sample.py", "--workdir=run", *short)
  assert found.returncode == 0, found.stderr
  assert (tmp_path / "run" / "metrics.jsonl").exists()
