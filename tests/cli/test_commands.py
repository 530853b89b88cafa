"""The command line, called in a process of its own: messages, exit statuses, recipes and help texts."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ssl_jax.cli import main
from ssl_jax.config.schema import EvaluateConfig, TrainConfig, to_json
from tests.recipes import CONFIGS, recipes

ROOT = CONFIGS.parent


def run(*words: str, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
  """Runs `ssl-jax` with these words; `cwd` may lie outside the checkout."""
  return subprocess.run(
    [sys.executable, "-m", "ssl_jax", *words],
    cwd=cwd,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )


def replaced(config: dict, path: str, value) -> dict:
  """A copy of the nested dict with the value at the dotted path replaced."""
  name, _, rest = path.partition(".")
  return {**config, name: replaced(config[name], rest, value) if rest else value}


@pytest.mark.parametrize(
  "words, status, message",
  [
    ((), 2, "Usage: ssl-jax COMMAND"),
    (("--help",), 0, "Usage: ssl-jax COMMAND"),
    (("train", "--help"), 0, "Usage: ssl-jax train"),
    (("trian",), 2, "there is no command 'trian'; did you mean 'train'"),
    (("train",), 2, "--config is missing"),
    (("train", "--config=configs/pretrain/nothing.py"), 2, "there is no file 'configs/pretrain/nothing.py'"),
    (
      ("train", "--config=configs/pretrain/moco.py:z"),
      2,
      "configs/pretrain/moco.py has no variant 'z'; known: a, b, c, d, e, v1",
    ),
    (
      ("train", "--config=configs/pretrain/moco.py", "--config.batch_sise=3"),
      2,
      "did you mean 'config.batch_size'",
    ),
    (
      ("train", "--config=configs/pretrain/moco.py", "--config.batch_size=many"),
      2,
      "invalid literal for int",
    ),
    (("train", "--config=configs/pretrain/moco.py", "--confg.batch_size=1"), 2, "Unknown command line flag"),
    (("train", "--config=configs/pretrain/moco.py", "--workdir=x", "surplus"), 2, "'surplus' is not a flag"),
    (("train", "--config=configs/pretrain/moco.py", "--workdir=gs://b/x"), 2, "is a URL, not a folder"),
    (("describe", "videos"), 2, "--data_dir is missing: the folder of the data set"),
    (("describe", "vidoes", "--data_dir=."), 1, "takes one word; did you mean 'videos'"),
  ],
)
def test_messages_and_exit_statuses(words, status, message):
  found = run(*words)
  assert found.returncode == status, found.stderr
  assert message in (found.stderr if status and words else found.stdout)
  assert "Traceback" not in found.stderr


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_fits_the_width_and_describes_every_flag_in_one_column(name):
  lines = main._help(name).splitlines()
  assert all(len(line) <= main.WIDTH for line in lines)
  assert lines[0].endswith(".") and lines[2].startswith(f"Usage: ssl-jax {name}")
  flags = main.COMMANDS[name].flags
  described = lines[lines.index("Flags:") + 1 :] if flags else []
  column = 6 + max((len(spec.name) for spec in flags), default=0)
  assert all(line[column - 1] == " " and line[column] != " " for line in described)
  named = [line.split()[0] for line in described if line.startswith("  --")]
  assert named == [f"--{spec.name.replace('_', '-')}" for spec in flags]


def test_the_overview_lists_every_command_with_the_first_line_of_its_help():
  lines = main._overview().splitlines()
  for name in main.COMMANDS:
    (line,) = (line for line in lines if line.startswith(f"  {name} "))
    assert line.endswith(f"  {main._help(name).splitlines()[0]}")
  assert all(len(line) <= main.WIDTH for line in lines)


def test_recipes_lists_every_installed_recipe_with_the_first_line_of_its_docstring(tmp_path):
  found = run("recipes", cwd=tmp_path)
  assert found.returncode == 0, found.stderr
  listed = dict(line.split(maxsplit=1) for line in found.stdout.splitlines())
  assert listed == {
    path.relative_to(CONFIGS).as_posix(): ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
    for path in CONFIGS.glob("*/*.py")
  }
  assert all(len(line) <= main.WIDTH for line in found.stdout.splitlines())


@pytest.mark.parametrize(
  "command, kind, name, option, text, value",
  [
    ("train", TrainConfig, "pretrain/moco_sample.py", "optimizer.learning_rate", "0.125", 0.125),
    ("evaluate", EvaluateConfig, "transfer/knn.py:imagenet", "tasks.knn.k", "7", 7),
  ],
)
def test_print_config_prints_the_completed_config_with_overrides(
  command, kind, name, option, text, value, tmp_path
):
  words = ("--config", name, f"--config.{option}={text}", "--workdir=run", "--print_config")
  found = run(command, *words, cwd=tmp_path)
  assert found.returncode == 0, found.stderr
  plain = to_json(recipes(kind)[name])
  printed = json.loads(found.stdout)
  assert printed == replaced(plain, option, value) and printed != plain
  assert not list(tmp_path.iterdir())  # nothing ran


def test_a_misspelt_recipe_is_refused_with_the_nearest_name(tmp_path):
  found = run("train", "--config", "pretrain/moco_sampel.py", "--workdir=run", cwd=tmp_path)
  assert found.returncode == 2
  assert "--config=pretrain/moco_sampel.py: there is no file 'pretrain/moco_sampel.py'" in found.stderr
  assert "did you mean 'pretrain/moco_sample.py'" in found.stderr
  assert "Traceback" not in found.stderr


@pytest.mark.parametrize("prefix", ["", "configs/"])
def test_a_file_in_the_current_folder_takes_precedence_over_an_installed_recipe(prefix, tmp_path):
  name = f"{prefix}pretrain/moco_sample.py"
  words = ("train", "--config", name, "--workdir=run", "--print-config")
  installed = run(*words, cwd=tmp_path)
  assert installed.returncode == 0, installed.stderr
  assert json.loads(installed.stdout)["method"]["name"] == "moco"
  own = tmp_path / name
  own.parent.mkdir(parents=True)
  own.write_text("def get_config():\n  raise ValueError('mine')\n")
  found = run(*words, cwd=tmp_path)
  assert found.returncode == 2 and "mine" in found.stderr and not found.stdout
  assert "Traceback" not in found.stderr
