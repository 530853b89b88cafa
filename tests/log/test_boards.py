"""Destinations of rows: callbacks, TensorBoard, Weights & Biases; with their packages and without them."""

import sys
import types

import pytest

from ssl_jax.log.boards import open_boards

ROWS = [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}]


def write(boards):
  for row in ROWS:
    for board in boards:
      board.write(row)
  for board in boards:
    board.close()


def test_without_any_there_is_none(tmp_path):
  assert open_boards(tmp_path) == ()


def test_callbacks_get_the_rows(tmp_path):
  one, two = [], []
  write(open_boards(tmp_path, callbacks=[one.append, two.append]))
  assert one == two == ROWS


@pytest.mark.parametrize(
  "options, module, message",
  [
    (dict(tensorboard=True), "tensorboardX", r"tensorboardX is not installed; pip install 'ssl_jax\[tensor"),
    (dict(wandb="mine"), "wandb", r"config.wandb is 'mine', but wandb is not installed; pip install"),
  ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, options, module, message):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(ValueError, match=message):
    open_boards(tmp_path, **options)


def test_weights_and_biases_get_the_config_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
  """With a stand-in for the package, which records the calls."""
  started, logged, ended = [], [], []
  run = types.SimpleNamespace(
    id="abc", log=lambda row, step: logged.append((step, row)), finish=lambda: ended.append(1)
  )
  stand_in = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
  monkeypatch.setitem(sys.modules, "wandb", stand_in)
  for _ in range(2):
    write(open_boards(tmp_path, wandb="mine", config={"seed": 3}))
  assert [options["id"] for options in started] == [None, "abc"] and len(ended) == 2
  assert started[0]["project"] == "mine" and started[0]["config"] == {"seed": 3}
  assert started[0]["dir"] == str(tmp_path) and started[0]["resume"] == "allow"
  assert logged[:2] == [(row["step"], row) for row in ROWS]


@pytest.mark.filterwarnings("ignore")  # of the package itself
def test_weights_and_biases_offline(tmp_path, monkeypatch):
  pytest.importorskip("wandb", reason="wandb is not installed: extra `wandb`")
  monkeypatch.setenv("WANDB_MODE", "offline")
  write(open_boards(tmp_path, wandb="mine", config={"seed": 3}))
  assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(tmp_path):
  pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: extra `tensorboard`")
  write(open_boards(tmp_path, tensorboard=True))
  (events,) = tmp_path.glob("events.*")
  assert b"loss" in events.read_bytes()
