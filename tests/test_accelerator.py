"""The benchmark accelerator.py at tiny sizes on the CPU: records, ratios, limits, going on after an end."""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import types

import pytest

FOLDER = pathlib.Path(__file__).parent / "benchmarks"


@pytest.fixture
def load(monkeypatch):
  """load(name) imports a module of the benchmarks, which find each other in their own folder."""
  monkeypatch.syspath_prepend(str(FOLDER))
  return importlib.import_module


def measured(output: pathlib.Path, *words: str) -> tuple[dict, str]:
  """Returns (the last line, which is JSON, and all that was printed)."""
  command = [sys.executable, str(FOLDER / "accelerator.py"), "--tiny", f"--output={output}", *words]
  done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=FOLDER.parents[1])
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1]), done.stdout


def test_a_case_that_fails_is_recorded_and_the_next_goes_on(tmp_path):
  output = tmp_path / "found.json"
  only = "--only=moco_step/eager,mae_base/ours,input/ours"
  result, _ = measured(output, only, f"--data={tmp_path / 'nowhere'}")
  assert "nowhere" in result["cases"]["input/ours"]["error"]
  ours, theirs = result["cases"]["mae_base/ours"], result["cases"]["moco_step/eager"]
  assert ours["images_per_second"] > 0 and ours["loss"] > 0 and ours["parameters"] > 1e6
  assert ours["versions"]["jax"] and ours["sizes"]["batch"] == 2 and ours["card"] == "cpu"
  assert theirs.get("images_per_second", 0) > 0 or "torch" in theirs["skipped"]
  assert json.loads(output.read_text()) == result
  again, printed = measured(output, only)
  assert again == result and printed.count("\n") == 1  # nothing ran
  mended, printed = measured(output, only, "--again")
  assert printed.count("\n") == 2 and mended["cases"]["input/ours"]["images_per_second"] > 0


def test_without_time_nothing_is_measured(tmp_path):
  result, printed = measured(tmp_path / "found.json", "--only=mae_base/ours", "--minutes=0")
  assert not result["cases"] and "no time is left" in printed


def test_a_case_is_stopped_at_its_limit(load, tmp_path):
  accelerator, cases = load("accelerator"), load("accelerator_cases").cases()
  case = next(case for case in cases if case.name == "mae_base/ours")
  child = accelerator.Child(case, argparse.Namespace(tiny=True, data="", output=tmp_path / "found.json"))
  assert "did not end within 0 s" in child.run(0.1)["error"]
  assert child.process.poll() is not None


def test_what_does_not_fit_runs_again_with_half_of_the_batch(load, tmp_path):
  accelerator, cases = load("accelerator"), load("accelerator_cases").cases()
  full = types.SimpleNamespace(case=cases[0], divisor=1, flags="")
  assert accelerator.mend(full, "RESOURCE_EXHAUSTED: out of memory") == {"divisor": 2, "flags": ""}
  assert accelerator.mend(full, "INTERNAL: no tile sizes")["flags"].endswith("triton_gemm=false")
  assert accelerator.mend(full, "ValueError: no such encoder") == {}
  args = argparse.Namespace(tiny=True, data="", output=tmp_path / "found.json")
  case = next(case for case in cases if case.name == "mae_base/ours")
  assert accelerator.Child(case, args, divisor=2).run(200)["sizes"]["batch"] == 1


def test_ratios_compare_sides_on_the_same_card(load):
  row = lambda speed, card: {"images_per_second": speed, "card": card}
  found = load("accelerator_cases").ratios(
    {
      "simclr/ours": row(30.0, "a"),
      "simclr/eager": row(20.0, "a"),
      "simclr/compiled": row(25.0, "b"),
      "ttt/eager": row(1.0, "a"),
      "features/ours": {"error": "out of memory"},
      "features/eager": row(1.0, "a"),
    }
  )
  assert found == {"simclr/eager": 1.5}


def test_compiled_peers_come_last_and_important_cases_first(load):
  cases = load("accelerator_cases")
  names = [case.name for case in cases.cases()]
  assert names[:2] == ["moco_step/ours", "moco_step/eager"] and len(set(names)) == len(names)
  first, last = names.index("moco_step/compiled"), names.index("features/compiled")
  assert all(name.endswith("compiled") for name in names[first : last + 1])
  assert not any(name.endswith(("eager", "compiled")) for name in names[last + 1 :])


def test_every_side_of_every_case_has_its_function(load):
  cases = load("accelerator_cases").cases()
  ours, host = load("accelerator_ours").OURS, load("accelerator_host").HOST
  for case in cases:
    assert case.name in host or case.side != "ours" or case.work.name in ours, case.name
  pytest.importorskip("torchvision", reason="torchvision is not installed: extra `bench`")
  theirs = load("accelerator_torch").THEIRS
  assert all(case.name in host or case.side == "ours" or case.work.name in theirs for case in cases)


def test_the_busy_share_counts_overlapping_kernels_once(load):
  covered = load("accelerator_measure").covered
  assert covered([(0, 2), (1, 3), (1.5, 2), (5, 6), (6, 10)]) == pytest.approx(0.8)


def test_the_flops_of_the_table_are_those_of_the_lowered_step(load):
  table, counts = load("accelerator_cases").GFLOP, load("accelerator_counts")
  assert counts.gflop("features") == pytest.approx(table["features"], rel=0.01)
