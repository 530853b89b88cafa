"""Runs of several real processes, whose devices alternate in the mesh as on TPU slices.

They log the same values as one process, stop together when one of them gets a signal, end when one is
killed, and can be resumed. They wait for events, without time limits, because the machine may be busy.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.run.test_train import RECIPE, rows

TOTAL = 24
CHANGES = ("--config.epochs=6.0", "--config.log_every=1", "--config.checkpoint.every_steps=100")
# `ssl-jax` with a mesh in which the devices of two processes alternate.
INTERLEAVED = """
import sys
import jax, numpy
from jax.sharding import AxisType, Mesh
from ssl_jax import parallel

def make_mesh(devices=None):
  devices = numpy.array(jax.devices() if devices is None else devices)
  return Mesh(devices.reshape(jax.process_count(), -1).T.ravel(), ("data",), axis_types=(AxisType.Auto,))

parallel.make_mesh = make_mesh
from ssl_jax.cli.main import main
main()
"""
KNN = """
from ssl_jax import EvaluateConfig, recipe

def get_config():
  return recipe(EvaluateConfig, tasks=dict(knn=dict(k=5, also=())),
                data=dict(train_split="train[:128]", test_split="train[128:192]"))
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("recipes")
  (folder / "tiny.py").write_text(RECIPE)
  (folder / "knn.py").write_text(KNN)
  return folder


@contextlib.contextmanager
def job(
  recipes: pathlib.Path, command: str, workdir: pathlib.Path, *words: str, processes: int, patience: int = 600
):
  """Starts a command in each process, with four devices in total; kills the processes at the end.

  Args:
    patience: seconds without a heartbeat after which a process counts as dead.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  file, words = (
    (recipes / "tiny.py", (*CHANGES, *words)) if command == "train" else (recipes / "knn.py", words)
  )
  shared = {
    **os.environ,
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "PYTHONUNBUFFERED": "1",
    "JAX_PLATFORMS": "cpu",
    "SSL_JAX_PATIENCE": str(patience),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // processes}",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_COMPILATION_CACHE_DIR": str(recipes / f"compiled{processes}"),
  }
  if processes > 1:
    shared |= {
      "SSL_JAX_DISTRIBUTED": "1",
      "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
      "JAX_NUM_PROCESSES": str(processes),
    }
  started = [
    subprocess.Popen(
      [sys.executable, "-c", INTERLEAVED, command, f"--config={file}", f"--workdir={workdir}", *words],
      env={**shared, "JAX_PROCESS_ID": str(rank)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(processes)
  ]
  try:
    yield started
  finally:
    for process in started:
      process.kill()
      process.wait()
      process.stdout.close()


def finish(started: list[subprocess.Popen], status: int = 0) -> list[str]:
  outputs = [process.communicate()[0] for process in started]
  assert [process.returncode for process in started] == [status] * len(started), "\n".join(
    output[-3000:] for output in outputs
  )
  return outputs


def wait_for_steps(workdir: pathlib.Path, count: int, started: list[subprocess.Popen]) -> None:
  while len(rows(workdir)) < count:
    assert all(process.poll() is None for process in started)
    time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(recipes, tmp_path_factory) -> pathlib.Path:
  """The workdir of a run by one process with four devices."""
  workdir = tmp_path_factory.mktemp("alone")
  with job(recipes, "train", workdir, processes=1) as started:
    finish(started)
  return workdir


@pytest.fixture(scope="module")
def stopped(recipes, tmp_path_factory) -> tuple[pathlib.Path, list[str]]:
  """Returns (workdir, outputs) of two processes, the second of which got SIGTERM."""
  workdir = tmp_path_factory.mktemp("stopped")
  with job(recipes, "train", workdir, processes=2) as started:
    wait_for_steps(workdir, 3, started)
    started[1].send_signal(signal.SIGTERM)
    return workdir, finish(started, 75)


def checkpoints(workdir: pathlib.Path) -> list[int]:
  return sorted(int(path.name.removeprefix("step_")) for path in (workdir / "checkpoints").iterdir())


def test_a_notice_to_one_process_stops_both_at_one_step_and_either_number_goes_on(recipes, alone, stopped):
  workdir, outputs = stopped
  (at,) = checkpoints(workdir)
  assert (
    3 <= at < TOTAL
    and f"saved step {at}" in outputs[0]
    and "stopped by a request to one of the processes" in outputs[0]
  )
  assert all(f"process {rank} of 2 on " in output for rank, output in enumerate(outputs))
  with job(recipes, "train", workdir, processes=1) as started:
    assert f"resuming at step {at} of {TOTAL}" in finish(started)[0]
  found, expected = rows(workdir), rows(alone)
  assert [row["step"] for row in found] == list(range(1, TOTAL + 1))
  for name in ("loss", "gradient_norm", "contrast_accuracy"):
    assert [row[name] for row in found] == pytest.approx([row[name] for row in expected], rel=2e-3), name


def test_two_processes_measure_a_run_as_one_does(recipes, alone):
  """With BatchNorm statistics that are estimated anew."""
  measured, precise = [], "--config.precise_batches=2"
  for processes in (1, 2):
    with job(recipes, "evaluate", alone, precise, processes=processes) as started:
      finish(started)
    (file,) = (alone / "evaluations").rglob("knn*.json")
    measured.append(json.loads(file.read_text())["scalars"])
    file.unlink()
  assert measured[0] == measured[1]


def test_two_processes_agree_that_a_checkpoint_is_damaged(recipes, alone, tmp_path):
  """And their devices, which gather the batches themselves, log what those of one process log."""
  workdir = tmp_path / "run"
  shutil.copytree(alone, workdir)
  file = max((workdir / "checkpoints" / f"step_{TOTAL}").rglob("d/*"), key=lambda path: path.stat().st_size)
  content = file.read_bytes()
  file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  with job(recipes, "train", workdir, "--config.data.device_cache=True", processes=2) as started:
    first, second = finish(started)
  assert f"the checkpoint of step {TOTAL} is damaged: " in first and "resuming from the beginning" in first
  assert "damaged" not in second and f"saved step {TOTAL}" in first
  assert checkpoints(workdir) == [TOTAL] and len(list((workdir / "damaged").iterdir())) == 1
  assert [row["loss"] for row in rows(workdir)] == pytest.approx(
    [row["loss"] for row in rows(alone)], rel=2e-3
  )


def test_a_process_that_dies_takes_the_job_down_by_name(recipes, tmp_path):
  endless = "--config.epochs=1000000.0"
  with job(recipes, "train", tmp_path, endless, processes=2, patience=30) as started:
    wait_for_steps(tmp_path, 2, started)
    started[1].kill()
    output = started[0].communicate()[0]
  assert started[0].returncode != 0
  assert re.search(r"Task 1 heartbeat timeout|unhealthy[^\n]*\n1\n", output), output[-3000:]
