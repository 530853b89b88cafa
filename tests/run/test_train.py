"""The training loop in real processes: killed, stopped and resumed; and runs that must not start."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.config.recipe_builder import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.log.step_metrics import NonFiniteLoss
from ssl_jax.run.assembly import abstract_state, assemble
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.stop import Stop
from ssl_jax.run.train import train

TOTAL, EVERY = 60, 10
RECIPE = """
from ssl_jax import recipe

def get_config():
  return recipe(
      method=dict(name="moco", dim=16, mlp=True, queue_size=64, momentum=0.9, temperature=0.2),
      encoder=dict(name="resnet10", width=8, stem="small", batch_groups=2),
      augment=dict(name="moco_v2", views=2, size=16),
      optimizer=dict(learning_rate=0.03, weight_decay=1e-4),
      data=dict(name="synthetic", split="train[:128]", size=16, cache=True),
      checkpoint=dict(every_steps=10, keep=2), batch_size=32, epochs=15.0, log_every=5)
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("recipe") / "tiny.py"
  path.write_text(RECIPE)
  return path


def config(recipe_file, **changes) -> TrainConfig:
  namespace = {}
  exec(recipe_file.read_text(), namespace)
  made = namespace["get_config"]()
  made.update(changes)
  return check(TrainConfig, made)


def start(recipe_file, workdir, *words) -> subprocess.Popen:
  environment = {
    **os.environ,
    "XLA_FLAGS": "",
    "PYTHONUNBUFFERED": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_COMPILATION_CACHE_DIR": str(recipe_file.parent / "compiled"),
  }
  return subprocess.Popen(
    [sys.executable, "-m", "ssl_jax", "train", f"--config={recipe_file}", f"--workdir={workdir}", *words],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture
def hangup():
  """SIGHUP has its usual effect: a suite that is started by nohup ignores it, and so would its processes."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)


def finish(process: subprocess.Popen, status: int = 0) -> str:
  output, _ = process.communicate()
  assert process.returncode == status, output
  return output


def wait_for(condition, process: subprocess.Popen) -> None:
  while not condition():
    assert process.poll() is None, f"ended before the moment came: {process.communicate()[0]}"
    time.sleep(0.002)


def rows(workdir: pathlib.Path) -> list[dict]:
  path = workdir / "metrics.jsonl"
  return (
    [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    if path.exists()
    else []
  )


def last_state(recipe_file, workdir):
  made = config(recipe_file)
  mesh = parallel.make_mesh(jax.devices()[:1])
  abstract, _ = abstract_state(assemble(made, DataSpec(128, 10, 32)), made, mesh)
  with Checkpoints(workdir) as checkpoints:
    assert checkpoints.steps()[-1] == TOTAL
    state = checkpoints.restore(TOTAL, abstract)
  return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def undisturbed(recipe_file, tmp_path_factory):
  """(workdir, last state) of a run that was never interrupted."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  finish(start(recipe_file, workdir))
  return workdir, last_state(recipe_file, workdir)


MOMENTS = {
  "before the first checkpoint": lambda w: bool(rows(w)),
  "during a save": lambda w: any("tmp" in p.name for p in (w / "checkpoints").glob("step*")),
  "between two saves": lambda w: len(rows(w)) >= 7,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_ends_bit_identical(moment, recipe_file, undisturbed, tmp_path):
  process = start(recipe_file, tmp_path)
  wait_for(lambda: MOMENTS[moment](tmp_path), process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  finish(start(recipe_file, tmp_path))
  state = last_state(recipe_file, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, undisturbed[1])
  figures = lambda w: [
    {name: row[name] for name in ("step", "loss", "contrast_accuracy", "gradient_norm", "learning_rate")}
    for row in rows(w)
  ]
  assert figures(tmp_path) == figures(undisturbed[0])  # no row lost, none twice


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_says_so_and_exits_75(number, recipe_file, undisturbed, tmp_path, hangup):
  process = start(recipe_file, tmp_path)
  wait_for(lambda: bool(rows(tmp_path)), process)
  process.send_signal(number)
  output = finish(process, 75)
  name = signal.Signals(number).name
  assert re.search(rf"stopped by {name} at step \d+ of {TOTAL}; run the same command again to resume", output)
  with Checkpoints(tmp_path) as checkpoints:
    stopped_at = checkpoints.steps()[-1]
  assert stopped_at < TOTAL
  assert f"resuming at step {stopped_at} of {TOTAL}" in finish(start(recipe_file, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, last_state(recipe_file, tmp_path), undisturbed[1])


def test_it_continues_when_nobody_reads_its_output_any_more(recipe_file, undisturbed, tmp_path):
  process = start(recipe_file, tmp_path)  # whose stderr goes to the same pipe
  wait_for(lambda: bool(rows(tmp_path)), process)
  process.stdout.close()
  assert process.wait() == 0
  jax.tree.map(np.testing.assert_array_equal, last_state(recipe_file, tmp_path), undisturbed[1])
  assert [row["step"] for row in rows(tmp_path)] == list(range(5, TOTAL + 1, 5))


def test_a_terminal_that_closes_may_hang_up_more_than_once_and_nohup_is_respected(hangup):
  with Stop() as stop:
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGHUP)
    assert stop.poll() == "SIGHUP"
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with Stop() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert stop.poll() == ""


def test_finished_run_has_nothing_left_to_do(recipe_file, undisturbed):
  before = (undisturbed[0] / "metrics.jsonl").read_text()
  finish(start(recipe_file, undisturbed[0]))
  assert (undisturbed[0] / "metrics.jsonl").read_text() == before


def test_checkpoints_kept_are_the_last_two(undisturbed):
  with Checkpoints(undisturbed[0]) as checkpoints:
    assert checkpoints.steps() == [TOTAL - EVERY, TOTAL]


def test_log_shows_three_speeds_and_the_waiting_share(undisturbed):
  found = rows(undisturbed[0])
  assert [row["step"] for row in found] == list(range(5, TOTAL + 1, 5))
  for row in found:
    assert 0 <= row["waiting_fraction"] <= 1
    assert row["step_images_per_second"] >= row["images_per_second"] > 0
    assert row["input_images_per_second"] > 0


def test_steps_are_traced_and_the_program_is_written(recipe_file, tmp_path):
  output = finish(start(recipe_file, tmp_path, "--profile=steps 3-4", "--hlo", "--config.epochs=2.0"))
  assert "traced steps 3 to 4 into" in output
  assert any(path.stat().st_size > 1000 for path in (tmp_path / "profile").rglob("*.xplane.pb"))
  assert "HloModule" in (tmp_path / "hlo" / "train_step.hlo.txt").read_text()
  assert json.loads((tmp_path / "hlo" / "train_step.json").read_text())["memory"]["temp_size_in_bytes"] > 0


@pytest.mark.parametrize(
  "steps, message",
  [
    ("five", "--profile=five is not a range of steps; use two numbers"),
    ("9-8", "use later steps"),
    ("55-60", "the run continues after step 60"),
  ],
)
def test_steps_that_cannot_be_traced_are_refused(steps, message, recipe_file, undisturbed):
  with pytest.raises(ValueError, match=message):
    train(config(recipe_file), undisturbed[0], profile=steps)


def test_changed_config_is_refused_with_the_differences(recipe_file, undisturbed):
  changed = config(recipe_file, seed=3, log_every=7)
  with pytest.raises(ValueError, match=r"a different config:\n  config.seed: 0 -> 3\nUse the old values"):
    train(changed, undisturbed[0])


@pytest.mark.parametrize(
  "option, cure",
  [
    ("every_steps=0", "every_steps is 0; use a positive number: one that is larger than the number of steps"),
    ("every_steps=-5", "every_steps is -5; use a positive number"),
    ("keep=0", "keep is 0, but a run must keep its last checkpoint; use a positive number, or keep_every=1"),
    ("keep=-1", "keep is -1, but a run must keep its last checkpoint"),
    ("keep_every=-1", "keep_every is -1; use a positive number, or 0"),
  ],
)
def test_checkpoints_that_could_not_be_saved_or_kept_are_refused(option, cure, recipe_file):
  name, value = option.split("=")
  with pytest.raises(ValueError, match=f"config.checkpoint.{cure}"):
    config(recipe_file, checkpoint={name: int(value)})


def test_too_many_devices_for_the_batch(recipe_file, tmp_path):
  with pytest.raises(
    ValueError, match="batch_size 12 is not divisible by 8 devices; use a multiple of 8, such as 8"
  ):
    train(config(recipe_file, batch_size=12), tmp_path)


def test_batch_larger_than_the_data(recipe_file, tmp_path):
  with pytest.raises(ValueError, match="batch_size 256 is larger than the data set of 128 images"):
    train(config(recipe_file, batch_size=256), tmp_path)


def test_non_finite_loss_stops_with_the_step_and_saves_nothing_bad(recipe_file, tmp_path):
  made = recipe(
    method=dict(name="supervised"),
    encoder=dict(name="resnet10", width=8, stem="small", norm="group"),
    augment=dict(name="supervised", views=1, size=16),
    optimizer=dict(learning_rate=1e30),
    data=dict(name="synthetic", split="train[:128]", size=16, cache=True),
    checkpoint=dict(every_steps=1, keep=2),
    batch_size=32,
    epochs=5.0,
  )
  with pytest.raises(NonFiniteLoss, match=r"is (nan|inf) at step \d+; the earlier checkpoints are good"):
    train(check(TrainConfig, made), tmp_path)
  with Checkpoints(tmp_path) as checkpoints:
    steps = checkpoints.steps()
  assert steps and steps[-1] < 20
