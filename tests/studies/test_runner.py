"""The runner: the work is done once, whoever dies in the middle of it, and gives the same results."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

import ssl_jax
from ssl_jax.log.run_log import STARTS, lines
from ssl_jax.run import lock
from ssl_jax.studies import processes, worker
from ssl_jax.studies.definition import Study
from ssl_jax.studies.jobs import make_jobs, marks
from tests.conftest import REPOSITORY
from tests.studies import tiny

FILE = REPOSITORY / "tests/studies/tiny.py"


def start(output: pathlib.Path, *words: str) -> subprocess.Popen:
  """Starts `ssl-jax study` on the tiny study, without eight simulated devices."""
  flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", "")
  return subprocess.Popen(
    [sys.executable, "-m", "ssl_jax", "study", f"--study={FILE}", f"--output={output}", *words],
    cwd=REPOSITORY,
    env={**os.environ, "XLA_FLAGS": flags, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def starts(output: pathlib.Path) -> dict[str, list[int]]:
  """The steps at which each run was started or resumed."""
  return {
    path.parent.parent.name: [line["step"] for line in lines(path)]
    for path in output.glob(f"runs/*/*/{STARTS}")
  }


def count(output: pathlib.Path) -> int:
  """How often runs were started or resumed."""
  return sum(map(len, starts(output).values()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pathlib.Path:
  """The folder of a study that two runners shared."""
  output = tmp_path_factory.mktemp("studies") / "undisturbed"
  runners = [start(output, "--parallel=1") for _ in range(2)]
  for runner in runners:
    printed, _ = runner.communicate()
    assert not runner.returncode, printed
    assert "wide - narrow" in printed
  return output


def test_two_runners_side_by_side_train_each_run_once(undisturbed):
  assert starts(undisturbed) == {"wide": [0], "narrow": [0]}
  assert not list(undisturbed.glob(f"runs/**/{lock.FILE}"))


def workers(output: pathlib.Path) -> list[int]:
  """The processes that hold locks of jobs."""
  found = [lock.read(path) for path in output.glob(f"runs/*/*/study/{lock.FILE}")]
  return [seen.holder()["pid"] for seen in found if seen and seen.holder()]


@pytest.mark.slow
def test_a_study_that_is_killed_at_random_moments_gives_the_same_file(undisturbed, tmp_path):
  moments, output = random.Random(3), tmp_path / "killed"
  for number in range(3):
    before = count(output)
    runner = start(output, "--parallel=2")
    while runner.poll() is None and not (count(output) > before if number else workers(output)):
      time.sleep(0.02)
    assert runner.poll() is None, "it was done before it was disturbed"
    time.sleep(moments.uniform(0, 1))
    if number == 0:  # as Ctrl-C
      runner.send_signal(signal.SIGINT)
      printed, _ = runner.communicate()
      assert runner.returncode == 75 and "run the same command again to continue" in printed
      assert not workers(output)
    else:
      runner.kill()
      for pid in workers(output) if number == 2 else ():
        os.kill(pid, signal.SIGKILL)
      runner.communicate()
  runner = start(output, "--parallel=2")
  printed, _ = runner.communicate()
  assert not runner.returncode, printed
  assert (output / "study.json").read_bytes() == (undisturbed / "study.json").read_bytes()


def test_from_python_a_whole_study_is_read(undisturbed, tmp_path):
  output = shutil.copytree(undisturbed, tmp_path / "copy")
  (output / "study.json").unlink()
  found = ssl_jax.study(tiny.get_study(), output)
  assert found == json.loads((undisturbed / "study.json").read_text())
  assert found == json.loads((output / "study.json").read_text())
  assert [row["run"] for row in found["rows"]] == [
    name for run in ("wide", "narrow") for name in [run] * 2 + [f"{run}:pixels"] * 2
  ]
  assert starts(output) == {"wide": [0], "narrow": [0]} and not found["missing"]
  assert found["runs"]["narrow"]["changed"] == ["config.encoder.width: 16 -> 8"]
  assert ssl_jax.study(str(FILE) + ":3", output, seeds=[0]) == found


def test_a_whole_study_refuses_other_options_and_unknown_scalars(undisturbed, tmp_path):
  runs = dict(wide=dict(config=tiny.training(), overrides={"optimizer.learning_rate": 0.5}))
  other = ssl_jax.define_study(runs=runs, evaluations=dict(knn=dict(config=tiny.knn())), seeds=[0])
  with pytest.raises(ValueError, match="learning_rate: 0.001 -> 0.5\nUse the old values or another --output"):
    ssl_jax.study(other, undisturbed)
  knn = dict(config=tiny.knn(baselines=("pixels",)), scalars=("knn.top2",))
  runs = dict(wide=dict(config=tiny.training()))
  with pytest.raises(ValueError, match="'knn.top2', which the task does not give; did you mean 'knn.top"):
    ssl_jax.study(ssl_jax.define_study(runs=runs, evaluations=dict(knn=knn), seeds=[0]), undisturbed)


def test_a_dry_run_measures_and_writes_nothing(tmp_path):
  runner = start(tmp_path / "dry", "--dry_run", "--parallel=2")
  printed, _ = runner.communicate()
  assert not runner.returncode and "2 of 2 runs to do, 2 at once" in printed
  assert printed.count("│ now ") == 2 and not (tmp_path / "dry").exists()


def test_a_run_that_fails_is_named_and_those_that_start_from_it_do_not_run(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, "PROGRAM", "import sys; print('the disk is full'); sys.exit(1)")
  runs = dict(
    first=dict(config=tiny.training()), second=dict(config=tiny.training(), start="first", overrides={})
  )
  study = ssl_jax.define_study(runs=runs, evaluations=dict(knn=dict(config=tiny.knn())), seeds=[4])
  with pytest.raises(RuntimeError, match=r"2 of 2 runs failed.*\n  first, seed 4: the disk is full") as error:
    ssl_jax.study(study, tmp_path)
  assert "second, seed 4: it starts from first, seed 4, which failed" in str(error.value)


PRETENDER = """
import json, pathlib, sys
job = json.loads(sys.stdin.readline())
marks = pathlib.Path(job["folder"], "study")
with open(marks.parents[3] / "order.txt", "a") as order:
  print(job["run"], job["seed"], file=order)
if job["run"] == STOPS and not (marks / "stopped").exists():
  (marks / "stopped").touch()
  sys.exit(75)
if job["run"] == LAZY:
  sys.exit(0)
(marks / "trained.json").write_text(json.dumps({"config": job["config"], "steps": 1, "seconds": 1}))
for name, config in job["evaluations"].items():
  done = {"config": config, "scalars": {"": {"knn": {"top1": 0.5 + job["seed"]}}}, "seconds": 1}
  (marks / f"evaluation-{name}.json").write_text(json.dumps(done))
"""


def pretend(monkeypatch, *, stops: str = "", lazy: str = "") -> None:
  """Replaces the work of the processes: they write results at once, `stops` at its second start."""
  monkeypatch.setattr(processes, "PROGRAM", f"STOPS, LAZY = {stops!r}, {lazy!r}\n{PRETENDER}")


def chain() -> Study:
  """A run that is named before the one that it starts from."""
  runs = dict(tuned=dict(config=tiny.training(), start="pretrained"), pretrained=dict(config=tiny.training()))
  return ssl_jax.define_study(runs=runs, evaluations=dict(knn=dict(config=tiny.knn())), seeds=(0, 1))


def test_a_run_follows_the_run_that_it_starts_from_and_a_stopped_one_is_resumed(tmp_path, monkeypatch):
  pretend(monkeypatch, stops="pretrained")
  found = ssl_jax.study(chain(), tmp_path, parallel=1)
  order = (tmp_path / "order.txt").read_text().splitlines()
  assert sorted(order) == ["pretrained 0"] * 2 + ["pretrained 1"] * 2 + ["tuned 0", "tuned 1"]
  for seed in "01":
    assert order.index(f"tuned {seed}") > max(i for i, job in enumerate(order) if job == f"pretrained {seed}")
  assert [row["values"] for row in found["rows"]] == [[0.5, 1.5]] * 2
  (tmp_path / "elsewhere").mkdir()
  moved = shutil.move(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
  assert ssl_jax.study(chain(), pathlib.Path(moved).parent)["rows"] == found["rows"]  # trains nothing
  assert (tmp_path / "order.txt").read_text().splitlines() == order


def test_a_process_that_leaves_no_results_has_failed(tmp_path, monkeypatch):
  pretend(monkeypatch, lazy="tuned")
  with pytest.raises(RuntimeError, match="2 of 4 runs failed") as error:
    ssl_jax.study(chain(), tmp_path, parallel=2)
  assert "tuned, seed 1: exit status 0" in str(error.value)
  assert json.loads((tmp_path / "study.json").read_text())["missing"] == ["tuned, seed 0", "tuned, seed 1"]


@pytest.mark.parametrize("changes, held", [({}, True), ({"began": "1"}, False), ({"machine": "pod"}, True)])
def test_a_lock_of_a_dead_process_is_not_held(changes, held, tmp_path, monkeypatch):
  (job, *_) = make_jobs(tiny.get_study(), tmp_path)
  folder = marks(job.folder)
  folder.mkdir(parents=True)
  assert not processes.Locks().is_held(job)
  (folder / lock.FILE).write_text(json.dumps({**lock._me(), "token": "other", **changes}))
  now = 100.0
  monkeypatch.setattr(processes, "time", types.SimpleNamespace(monotonic=lambda: now))
  locks = processes.Locks(patience=5.0)
  assert locks.is_held(job) == held
  now = 106.0
  assert locks.is_held(job) == (held and "machine" not in changes)  # elsewhere, without a heartbeat
  if "machine" in changes:
    os.utime(folder / lock.FILE)
    assert locks.is_held(job)


def test_a_worker_whose_job_another_process_has_gives_it_back(tmp_path, capsys):
  (job, *_) = make_jobs(tiny.get_study(), tmp_path)
  marks(job.folder).mkdir(parents=True)
  with lock.Lock(marks(job.folder)), pytest.raises(SystemExit) as ended:
    worker.run(job)
  assert ended.value.code == worker.BUSY
