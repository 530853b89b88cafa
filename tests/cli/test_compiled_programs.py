"""Compiled programs are kept on the disk unless that is turned off; the second start compiles nothing."""

import os
import subprocess
import sys

import pytest

from ssl_jax.cli import main
from ssl_jax.cli.compiled_programs import MOST_BYTES, _drop_oldest, keep_compiled_programs
from tests.conftest import REPOSITORY


def test_the_folder_of_this_processor_is_made_and_told_once(tmp_path):
  environment = {"XDG_CACHE_HOME": str(tmp_path)}
  folder = keep_compiled_programs("", environment)
  assert folder and folder.parent == tmp_path / "ssl_jax" / "compiled" and folder.is_dir()
  assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
  assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
  again = {"XDG_CACHE_HOME": str(tmp_path)}
  assert keep_compiled_programs("", again) is None and again == environment


@pytest.mark.parametrize("chosen", ["off", "OFF", "no", "0"])
def test_it_can_be_turned_off(chosen, tmp_path):
  environment = {"XDG_CACHE_HOME": str(tmp_path)}
  assert keep_compiled_programs(chosen, environment) is None
  assert len(environment) == 1 and not list(tmp_path.iterdir())


def test_a_folder_of_the_user_comes_first(tmp_path):
  environment = {"JAX_COMPILATION_CACHE_DIR": "/mine"}
  assert keep_compiled_programs(str(tmp_path / "other"), environment) is None
  assert environment == {"JAX_COMPILATION_CACHE_DIR": "/mine"}
  chosen: dict[str, str] = {}
  assert keep_compiled_programs(str(tmp_path / "other"), chosen) == tmp_path / "other"


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path):
  (tmp_path / "file").touch()
  environment = {"XDG_CACHE_HOME": str(tmp_path / "file")}
  assert keep_compiled_programs("", environment) is None and len(environment) == 1


def test_the_oldest_programs_go_first(tmp_path):
  for i in range(4):
    (tmp_path / str(i)).write_bytes(bytes(10))
    os.utime(tmp_path / str(i), (i, i))
  _drop_oldest(tmp_path, 25)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
  assert MOST_BYTES > 2**30


def test_the_option_is_taken_out_of_the_words_of_any_command():
  words = ["--a=1", "--compiled_programs=off", "b", "--compiled-programs=DIR"]
  assert main._without_option(words, main.PROGRAMS) == ("DIR", ["--a=1", "b"])
  assert main._without_option(["--a"], main.PROGRAMS) == ("", ["--a"])
  assert set(main.COMPILING) <= set(main.COMMANDS)


def test_the_second_start_compiles_nothing_and_the_first_line_comes_before_jax(tmp_path):
  kept = {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
  environment = {name: value for name, value in os.environ.items() if name not in kept}
  environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", "ssl_jax", "show", "corruptions", "--config=pretrain/moco_sample.py"]

  def draw(name: str) -> tuple[str, set[str]]:
    done = subprocess.run(
      [*command, f"--output={tmp_path / name}"],
      env=environment,
      capture_output=True,
      text=True,
      timeout=300,
      cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "ssl_jax" / "compiled").iterdir()
    return done.stderr, {path.name for path in folder.iterdir() if "atime" not in path.name}

  said, first = draw("a.png")
  assert first and said.startswith("compiled programs are kept in ") and "--compiled-programs=off" in said
  assert "loading JAX ..." in said and "drawing corruptions ..." in said
  again, second = draw("b.png")
  assert second == first and "are kept in" not in again
