"""The README's Python blocks run as they stand, beside runs with the names that they use."""

import re

import pytest

from ssl_jax.config.schema import TrainConfig, check
from tests.conftest import REPOSITORY
from tests.recipes import save, shrunk, train_recipes

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
RUNS = {"runs/sample": "pretrain/moco_sample.py", "runs/joint": "pretrain/joint.py:cifar10_cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with tiny runs of the recipes that the README trains."""
  root = tmp_path_factory.mktemp("readme")
  for name, recipe in RUNS.items():
    save(check(TrainConfig, shrunk(train_recipes()[recipe], batch=32, size=32)), root / name)
  return root


def test_there_are_blocks():
  assert len(BLOCKS) == 3 and all(name in README for name in RUNS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
@pytest.mark.filterwarnings("ignore:The queue of")
def test_a_block_runs(number, folder, monkeypatch, capsys):
  monkeypatch.chdir(folder)
  exec(compile(BLOCKS[number], f"README block {number}", "exec"), {"__name__": "readme"})
  assert capsys.readouterr().out.strip()


def test_files_that_are_named_exist():
  for path in re.findall(r"\]\(([\w/.]+)\)", README) + re.findall(r"configs/[\w/]+\.py", README):
    assert (REPOSITORY / path).exists(), path
