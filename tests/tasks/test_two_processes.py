"""Two processes with two devices each give the same results as one process."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("two_processes.py")


def test_two_processes_equal_one(tmp_path):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  outputs = [tmp_path / f"{rank}.json" for rank in range(2)]
  environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
  workers = [
    subprocess.Popen(
      [sys.executable, str(SCRIPT), str(port), str(rank), str(outputs[rank])],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(2)
  ]
  try:
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  assert [worker.returncode for worker in workers] == [0, 0], "\n".join(error[-3000:] for error in errors)
  found = [json.loads(output.read_text()) for output in outputs]
  specification = importlib.util.spec_from_file_location("two_processes", SCRIPT)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  expected = module.measure()
  assert found[0] == found[1] and found[0]["images"]
  for name in expected.keys() - {"images"}:
    predictions = [run[name].pop("predictions") for run in (found[0], expected)]
    assert predictions[0] == predictions[1], name
    assert found[0][name] == pytest.approx(expected[name], rel=1e-4), name
    assert name in ("standard", "online") or 0.5 < expected[name]["top1"] < 1, name
