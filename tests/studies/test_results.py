"""Means, standard errors and intervals, by hand and by SciPy."""

import math

import numpy as np
import pytest
from PIL import Image

from ssl_jax.config.schema import to_json
from ssl_jax.studies import results
from ssl_jax.studies.jobs import make_jobs, marks, write_json
from tests.studies import tiny

TOP1 = {"wide": (0.5, 0.7, 0.6), "narrow": (0.4, 0.5, 0.6)}


@pytest.fixture
def found(tmp_path):
  """The results of a study of two runs and three seeds whose files are written by hand; one is missing."""
  study = tiny.get_study("3")
  jobs = make_jobs(study, tmp_path)
  for job in jobs[:-1]:
    write_results(job, TOP1[job.run][job.seed])
  return results.collect(study, jobs)


def write_results(job, top1):
  """Writes the files of a job that is done."""
  marks(job.folder).mkdir(parents=True)
  trained = {"config": to_json(job.config), "steps": 1, "seconds": 1.0}
  write_json(marks(job.folder) / "trained.json", trained)
  scalars = {"pixels": {"knn": {"top1": 0.3, "top5": 1.0}}, "": {"knn": {"top1": top1, "top5": 1.0}}}
  config = to_json(job.evaluations["knn"])
  write_json(
    marks(job.folder) / "evaluation-knn.json", {"config": config, "scalars": scalars, "seconds": 1.0}
  )


def test_rows_and_differences_are_those_by_hand(found):
  row = next(row for row in found["rows"] if row["run"] == "wide")
  assert row["scalar"] == "knn.top1" and row["values"] == [0.5, 0.7, 0.6] and row["seeds"] == [0, 1, 2]
  assert row["mean"] == pytest.approx(0.6) and row["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
  pair = found["comparisons"][0]
  assert (pair["run"], pair["other"], pair["seeds"]) == ("wide", "narrow", [0, 1])
  assert pair["differences"] == pytest.approx([0.1, 0.2])
  assert pair["mean"] == pytest.approx(0.15) and pair["standard_error"] == pytest.approx(0.05)
  assert pair["interval"] == pytest.approx([0.15 - 12.7062 * 0.05, 0.15 + 12.7062 * 0.05], abs=1e-5)
  baseline = found["comparisons"][2]
  assert baseline["other"] == "wide:pixels" and baseline["mean"] == pytest.approx(0.3)
  assert found["missing"] == ["narrow, seed 2"]


def test_one_seed_has_no_error():
  assert results.mean_and_error([0.25]) == (0.25, None)


def test_files_and_tables(found, tmp_path, capsys):
  results.write(found, tmp_path)
  with Image.open(tmp_path / "study.png") as picture:
    assert np.asarray(picture.convert("L")).std() > 5
  lines = (tmp_path / "study.md").read_text().splitlines()
  assert lines[:3] == [
    "| mean ± standard error | knn.top1 | knn.top5 |",
    "| --- | --- | --- |",
    "| wide | 60.00 ± 5.77 | 100.00 ± 0.00 |",
  ]
  assert "| wide - narrow | knn.top1 | 15.00 ± 5.00 | -48.53 to 78.53 | 2 |" in lines
  results.print_tables(found)
  printed = capsys.readouterr().out
  assert "60.00 ± 5.77" in printed and "15.00 ± 5.00" in printed and "-48.53 to 78.53" in printed


def test_losses_are_not_percentages():
  assert results.scaled("probe.loss", 0.5) == "0.5000" and results.scaled("knn.top1", 0.5) == "50.00"
