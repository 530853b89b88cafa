"""The time left, from metrics that are written by hand, and the number of runs at once."""

import json

import pytest

from ssl_jax.log.run_log import METRICS
from ssl_jax.studies import processes, timing
from ssl_jax.studies.jobs import make_jobs, marks
from tests.studies import tiny


@pytest.fixture
def jobs(tmp_path):
  """Two runs of two seeds; the first took 100 of its 300 steps, at 10 steps a second."""
  jobs = make_jobs(tiny.get_study("2"), tmp_path)
  marks(jobs[0].folder).mkdir(parents=True)
  rows = [{"step": step, "images_per_second": 320.0} for step in (50, 100)]
  (jobs[0].folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
  return jobs


def test_seeds_share_their_speed_and_other_runs_take_the_mean(jobs):
  done = {job.key: timing.steps_done(job) for job in jobs}
  assert [done[job.key] for job in jobs] == [100, 0, 0, 0]
  assert timing.family_of(jobs[0]) == timing.family_of(jobs[1]) != timing.family_of(jobs[2])
  assert timing.time_left(jobs, done, 1) == pytest.approx((200 + 3 * 300) / 10)
  assert timing.time_left(jobs, done, 2) == pytest.approx((200 + 3 * 300) / 20)


def test_evaluations_count_as_those_that_ran(jobs):
  (marks(jobs[0].folder) / "evaluation-knn.json").write_text(json.dumps({"seconds": 7.0}))
  done = {job.key: job.total_steps for job in jobs}
  assert timing.time_left(jobs, done, 1) == pytest.approx(3 * 7)


def test_before_the_first_step_the_time_is_unknown(tmp_path):
  jobs = make_jobs(tiny.get_study(), tmp_path)
  assert timing.time_left(jobs, {job.key: 0 for job in jobs}, 1) is None


CLOCK = """
import json, pathlib, sys
number = len(list(pathlib.Path(FOLDER).iterdir()))
steps = json.loads(sys.stdin.readline())["steps_per_epoch"]
pathlib.Path(FOLDER, str(number)).write_text(str(steps))
print("a line of a training\\n0.25")
print("no memory", file=sys.stderr)
sys.exit(number >= 3)
"""


def test_as_many_runs_are_measured_as_work_at_once(tmp_path, monkeypatch):
  (job, *_) = make_jobs(tiny.get_study(), tmp_path / "study")
  folder = tmp_path / "started"
  folder.mkdir()
  start = timing.start_process

  def one_by_one(*args, **options):  # each is done before the next, so that they can be counted
    process = start(*args, **options)
    process.wait()
    return process

  monkeypatch.setattr(timing, "start_process", one_by_one)
  monkeypatch.setattr(processes, "PROGRAM", f"FOLDER = {str(folder)!r}\n{CLOCK}")
  assert timing.measured_speed(job, 3) == (0.25, "")
  assert [path.read_text() for path in folder.iterdir()] == ["4"] * 3
  assert timing.measured_speed(job, 2) == (0.0, "no memory")


def test_the_number_of_runs_at_once_is_bounded_by_jobs_and_memory(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: range(16), raising=False)
  monkeypatch.setattr(processes, "_free_bytes", lambda: 10 * processes.BYTES_OF_A_RUN)
  assert [processes.choose_parallel(jobs) for jobs in (1, 6, 40)] == [1, 6, 10]
  monkeypatch.setattr(processes, "_free_bytes", lambda: processes.BYTES_OF_A_RUN // 2)
  assert processes.choose_parallel(40) == 1
