"""The study of the sample, four runs of two seeds, made small."""

import dataclasses
import os

import pytest

import ssl_jax
from ssl_jax.studies.definition import Study
from ssl_jax.studies.runner import load_study

SMALL = {
  "epochs": 2.0,
  "batch_size": 32,
  "log_every": 2,
  "data.split": "train[:128]",
  "encoder.width": 4,
  "encoder.batch_groups": 2,
  "method.queue_size": 64,
  "method.dim": 8,
}


def shrunk(study: Study) -> Study:
  """The same runs, evaluations and comparisons with little networks and few images."""
  runs = {
    name: dataclasses.replace(run, overrides={**run.overrides, **SMALL}) for name, run in study.runs.items()
  }
  probe = {"tasks.linear_probe.batch_size": 32, "tasks.linear_probe.epochs": 5, "tasks.low_shot.shots": 2}
  few = {"data.test_split": "test[:64]", "batch_size": 64, **probe}
  evaluations = {
    name: dataclasses.replace(each, overrides={**each.overrides, **few})
    for name, each in study.evaluations.items()
  }
  return dataclasses.replace(study, runs=runs, evaluations=evaluations)


@pytest.mark.slow
def test_four_runs_of_two_seeds(tmp_path, monkeypatch, capsys):
  flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
  monkeypatch.setenv("XLA_FLAGS", flags)
  found = ssl_jax.study(shrunk(load_study("studies/sample.py")), tmp_path, seeds=[0, 1], parallel=2)
  assert list(found["runs"]) == ["moco", "published_views", "linear_head", "temperature_0.07"]
  baselines = {f"moco:{name}" for name in ("pixels", "colour_statistics", "untrained")}
  assert {row["run"] for row in found["rows"]} == {*found["runs"]} | baselines
  assert len(found["rows"]) == 3 * (4 + 3)  # scalars, runs and baselines
  assert all(row["seeds"] == [0, 1] and row["standard_error"] is not None for row in found["rows"])
  assert len({tuple(row["values"]) for row in found["rows"]}) > 1 and not found["missing"]
  assert len(found["comparisons"]) == 3 * 6 and all(
    len(each["interval"]) == 2 for each in found["comparisons"]
  )
  assert found["runs"]["linear_head"] == {
    "seeds": [0, 1],
    "steps": 8,
    "changed": ["config.method.mlp: True -> False"],
  }
  assert (tmp_path / "study.png").exists() and "moco - linear_head" in capsys.readouterr().out
