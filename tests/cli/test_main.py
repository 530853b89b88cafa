"""What surrounds the commands: errors, encodings, paths, and the restart for huge pages."""

import os
import pathlib
import subprocess
import sys

import pytest

from ssl_jax.cli import main
from ssl_jax.cli.flags import Command

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = "import sys\nfrom ssl_jax.cli.main import main\nmain()\n"


def run(script: pathlib.Path, *words: str, cwd: pathlib.Path, **env: str) -> subprocess.CompletedProcess:
  """Runs the script that an installation puts on the path, with `cwd` as the current folder."""
  script.write_text(SCRIPT)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **env}
  return subprocess.run(
    [sys.executable, str(script), *words], cwd=cwd, env=environment, capture_output=True, timeout=300
  )


@pytest.mark.parametrize(
  "error, message",
  [
    (KeyError("stage9"), "KeyError: 'stage9'"),
    (TypeError("unhashable"), "TypeError: unhashable"),
    (OverflowError("too large"), "OverflowError: too large"),
    (ValueError("config.seed is -1"), "ssl-jax: config.seed is -1"),
  ],
)
def test_any_error_is_a_sentence_and_the_traceback_is_asked_for(error, message, capsys, monkeypatch):
  def fail(values):
    error.add_note("while loading a.png")
    raise error

  monkeypatch.delenv("SSL_JAX_TRACEBACK", raising=False)
  with pytest.raises(SystemExit) as ended:
    main._call(Command(fail, ()), None)
  printed = capsys.readouterr().err
  assert ended.value.code == 1 and message in printed and "while loading a.png" in printed
  assert "SSL_JAX_TRACEBACK=1" in printed and "Traceback (most" not in printed
  monkeypatch.setenv("SSL_JAX_TRACEBACK", "1")
  with pytest.raises(type(error)):
    main._call(Command(fail, ()), None)


def test_the_home_folder_is_expanded_in_flags(monkeypatch):
  monkeypatch.setenv("HOME", "/home/ada")
  assert main._expanded("--workdir=~/runs") == "--workdir=/home/ada/runs"
  assert main._expanded("--config.data.data_dir=~") == "--config.data.data_dir=/home/ada"
  for word in ("--workdir=a~b", "~", "--flag", "--name=/x/~"):
    assert main._expanded(word) == word


def test_a_terminal_that_knows_only_ascii_gets_the_message(tmp_path):
  knn = ROOT / "configs/transfer/knn.py"
  done = run(
    tmp_path / "ssl-jax",
    "evaluate",
    f"--config={knn}",
    "--workdir=läufe",
    cwd=tmp_path,
    PYTHONIOENCODING="ascii",
  )
  assert done.returncode == 1 and rb"l\xe4ufe is not the folder of a run" in done.stderr


def test_files_of_the_current_folder_are_not_imported_by_the_restart(tmp_path):
  """Without GLIBC_TUNABLES the process starts itself again, and must keep its module search path."""
  folder = tmp_path / "here"
  folder.mkdir()
  for name in ("random", "queue", "rich", "optax"):
    (folder / f"{name}.py").write_text("raise SystemExit('a file of the current folder was executed')")
  done = run(tmp_path / "ssl-jax", "recipes", cwd=folder, GLIBC_TUNABLES="")
  assert done.returncode == 0, done.stderr.decode()[-2000:]
  assert b"moco" in done.stdout
