"""A study on the page: alone, beside a run, and damaged."""

import re

import pytest

from ssl_jax.studies import results
from ssl_jax.view.report import report
from tests.view.report.runs import write_run

FOUND = {
  "rows": [
    {
      "run": run,
      "scalar": "knn.top1",
      "seeds": [0, 1],
      "values": [mean - 0.01, mean + 0.01],
      "mean": mean,
      "standard_error": 0.01,
    }
    for run, mean in (("moco", 0.5), ("<b>linear</b>", 0.4))
  ],
  "comparisons": [
    {
      "run": "moco",
      "other": "<b>linear</b>",
      "scalar": "knn.top1",
      "seeds": [0, 1],
      "differences": [0.08, 0.12],
      "mean": 0.1,
      "standard_error": 0.02,
      "interval": [-0.1541, 0.3541],
    }
  ],
  "runs": {"moco": {"seeds": [0, 1], "steps": 248, "changed": ["config.method.mlp: True -> False"]}},
  "missing": ["moco, seed 2"],
}


@pytest.fixture
def study(tmp_path):
  folder = tmp_path / "ablation"
  folder.mkdir()
  results.write(FOUND, folder)
  return folder


def test_a_study_is_a_page(study):
  text = report([study]).read_text()
  assert re.findall(r'<section id="(\w+)"', text) == ["study"]
  for said in (
    "ablation",
    "50.00 ± 1.00",
    "10.00 ± 2.00",
    "-15.41 to 35.41",
    "moco, seed 2",
    "True -&gt; False",
  ):
    assert said in text, said
  assert "&lt;b&gt;linear" in text and "<b>linear" not in text and text.count("<img") == 1


def test_a_study_stands_beside_a_run(study, tmp_path):
  text = report([study, write_run(tmp_path / "run")]).read_text()
  assert re.findall(r'<section id="(\w+)"', text)[:2] == ["study", "run"]
  shown = re.findall(r'<section id="(\w+)" role="tabpanel" aria-labelledby="[\w-]+">', text)
  assert shown == ["study"]  # the others are hidden until their tab is chosen


def test_a_damaged_study_is_named_with_the_cure(study):
  (study / "study.json").write_text("{")
  with pytest.raises(ValueError, match="study.json is damaged .* run `ssl-jax study` again"):
    report([study])
