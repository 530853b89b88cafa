"""Launch scripts with stand-ins for Python, uv, Slurm and ssl-jax; the manifest against a schema."""

import math
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), ROOT / ".ci/run"])
COMMAND = ("--", "train", "--config=configs/pretrain/moco.py:e")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """stand_in(name, script) puts a bash script on the PATH before the command `name` and records its calls."""
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
  monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

  def make(name: str, script: str) -> None:
    (folder / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{script}\n')
    (folder / name).chmod(0o755)

  return make


def calls(tmp_path: pathlib.Path) -> list[str]:
  path = tmp_path / "calls"
  return path.read_text().splitlines() if path.exists() else []


def call(script: str, *words: str, **options) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", str(ROOT / "launch" / script), *words], capture_output=True, text=True, timeout=60, **options
  )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
  if not shutil.which("shellcheck"):
    pytest.skip("shellcheck is not installed")
  found = subprocess.run(["shellcheck", "-x", str(script)], capture_output=True, text=True, cwd=ROOT)
  assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
  "script, words, message",
  [
    ("slurm.sh", ("--gpus=8", "--", "train"), "--nodes= is not a number of machines"),
    ("slurm.sh", ("--nodes=2", "--gpus=eight", "--", "train"), "--gpus=eight is not a number"),
    ("slurm.sh", ("--nodes=2", "--gpus=8"), "the command after -- is missing"),
  ],
)
def test_missing_and_misspelt_options_are_named(script, words, message):
  found = call(script, *words)
  assert found.returncode == 2 and message in found.stderr
  assert call(script, "--help").stdout.startswith(f"Usage: launch/{script}")


class Worker:
  """A worker in a folder, with a stand-in for ssl-jax that tells how it was called and then does `body`."""

  def __init__(self, folder: pathlib.Path, body: str):
    shutil.copytree(ROOT / "launch", folder / "launch")
    self.folder, command = folder, folder / "command"
    command.write_text(
      f'#!/usr/bin/env bash\necho "distributed $SSL_JAX_DISTRIBUTED: $*"; echo run >> runs\n{body}\n'
    )
    command.chmod(0o755)
    self.environment = {**os.environ, "SSL_JAX": str(command), "SSL_JAX_POLL": "0.1"}

  def __call__(self, *words: str) -> str:
    worker = ["bash", str(self.folder / "launch" / "worker.sh"), *words]
    found = subprocess.run(worker, env=self.environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_worker_tells_what_runs_its_log_and_its_end(tmp_path):
  worker = Worker(tmp_path, "while [ ! -f go ]; do sleep 0.05; done; exit 75")
  assert worker("state") == ""
  worker("start", "1", "train", "--x=a 'b'")
  assert worker("state").splitlines() == ["state=running", "status=1", "keep=1", "command=train --x=a 'b'"]
  (tmp_path / "go").touch()
  assert "distributed 1: train --x=a 'b'" in worker("follow")
  assert worker("state").splitlines()[:2] == ["state=ended", "status=75"]
  assert worker("logs") == f"{os.uname().nodename}: distributed 1: train --x=a 'b'\n"


def test_a_worker_ends_what_is_left_of_the_command_before(tmp_path):
  worker = Worker(tmp_path, "trap 'echo stopped >> runs; exit 75' TERM; while :; do sleep 0.1; done")
  worker("start", "0", "train")
  while not (tmp_path / "runs").exists():
    time.sleep(0.05)
  first = (tmp_path / "job" / "pid").read_text()
  worker("start", "0", "evaluate")
  while (tmp_path / "runs").read_text().count("run\n") < 2:
    time.sleep(0.05)
  assert (tmp_path / "runs").read_text() == "run\nstopped\nrun\n"
  assert "train" in (tmp_path / "job" / "log.before").read_text()
  second = (tmp_path / "job" / "pid").read_text()
  assert first != second
  os.killpg(int(second), signal.SIGKILL)


def test_a_process_that_only_has_the_number_of_the_command_is_not_it(tmp_path):
  worker = Worker(tmp_path, "sleep 0")
  worker("start", "0", "train")
  worker("follow")
  (tmp_path / "job" / "status").unlink()
  (tmp_path / "job" / "pid").write_text(str(os.getpid()))  # as after a reboot
  assert worker("state").splitlines()[:2] == ["state=ended", "status=1"]


GET_UV = 'mkdir -p "$HOME/.local/bin" && cp "$UV" "$HOME/.local/bin/uv"'
PYTHON = """case "$*" in
  *version_info*) exit {old} ;;
  "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *--user\\ uv) {pip} ;;
esac"""


@pytest.fixture
def machine(stand_in, tmp_path, monkeypatch):
  """machine(old, uv, pip) installs on a worker whose python3 may be too old, that may have uv or pip."""
  (tmp_path / "tools").mkdir()
  for tool in ("bash", "env", "dirname", "cat", "cp", "cmp", "mkdir", "rm", "sh"):
    (tmp_path / "tools" / tool).symlink_to(shutil.which(tool) or tool)
  shutil.copytree(ROOT / "launch", tmp_path / "launch")
  (tmp_path / "setup.py").write_text("")
  (tmp_path / "home").mkdir()
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.setenv("UV", str(tmp_path / "uv" / "uv"))
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'tools'}")
  monkeypatch.delenv("PYTHON", raising=False)

  def make(old: bool, uv: bool = False, pip: bool = False) -> subprocess.CompletedProcess:
    stand_in("python9", "")  # the one that uv provides
    stand_in(
      "uv", 'for last; do :; done; mkdir -p "$last/bin"; cp "$(command -v python9)" "$last/bin/python"'
    )
    if not uv:
      (tmp_path / "uv").mkdir()
      (tmp_path / "bin" / "uv").rename(tmp_path / "uv" / "uv")
    stand_in("python3", PYTHON.format(old=int(old), pip=GET_UV if pip else "exit 1"))
    stand_in("curl", f"echo '{GET_UV}'")  # uv's installer
    script = ["bash", str(tmp_path / "launch" / "worker.sh"), "install"]
    return subprocess.run(script, capture_output=True, text=True, timeout=60)

  return make


@pytest.mark.parametrize("found", ["uv", "pip", "installer"])
def test_a_worker_whose_python_is_old_gets_one_from_uv(machine, tmp_path, found):
  ended = machine(old=True, uv=found == "uv", pip=found == "pip")
  assert ended.returncode == 0, ended.stderr
  assert "no python3 of 3.11 or newer with venv on this machine: uv provides Python 3.11" in ended.stderr
  lines = calls(tmp_path)
  assert "uv venv --quiet --python 3.11 --seed .venv" in lines
  assert any("python9 -m pip install" in line and line.endswith("--editable .[tpu]") for line in lines)
  assert any("--user uv" in line for line in lines) == (found != "uv")
  assert any(line.startswith("curl") for line in lines) == (found == "installer")


def test_a_worker_whose_python_is_new_needs_no_uv(machine, tmp_path):
  assert machine(old=False).returncode == 0
  assert not any("uv" in line for line in calls(tmp_path))
  assert sum("pip install" in line for line in calls(tmp_path)) == 1


def test_a_python_that_is_asked_for_and_too_old_is_refused(machine, monkeypatch):
  monkeypatch.setenv("PYTHON", "python3")
  ended = machine(old=True, uv=True)
  assert ended.returncode == 1 and "ssl_jax needs Python 3.11 or newer; PYTHON=python3 is" in ended.stderr


def test_the_pod_script_runs_the_launcher_in_the_checkout(tmp_path):
  shutil.copytree(ROOT / "launch", tmp_path / "launch")
  python = tmp_path / ".venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text('#!/usr/bin/env bash\necho "$PWD: $*"\n')
  python.chmod(0o755)
  script = ["bash", str(tmp_path / "launch" / "tpu_pod.sh"), "--name=a", "--", "train", "--x=a b"]
  found = subprocess.run(script, capture_output=True, text=True, timeout=60)
  assert found.stdout == f"{tmp_path}: -m ssl_jax.launching --name=a -- train --x=a b\n"


def test_slurm_runs_one_process_per_gpu(stand_in, tmp_path):
  stand_in("sbatch", "")
  found = call("slurm.sh", "--nodes=4", "--gpus=8", "--time=1:00", *COMMAND)
  (line,) = calls(tmp_path)
  assert (
    found.returncode == 0
    and "--nodes=4 --ntasks-per-node=8 --gpus-per-node=8" in line
    and "--time=1:00" in line
  )
  assert line.endswith("slurm.sh train --config=configs/pretrain/moco.py:e")
  assert (
    call("slurm.sh", "--nodes=4", "--gpus=8", "--dry-run", *COMMAND).returncode == 0
    and len(calls(tmp_path)) == 1
  )


@pytest.mark.parametrize("on_notice, queued", [(75, True), (0, False)])
def test_a_slurm_job_at_its_time_limit_saves_and_is_requeued(stand_in, tmp_path, on_notice, queued):
  stand_in(
    "srun", f"trap 'exit {on_notice}' TERM; touch \"$CALLS.ready\"; for i in $(seq 300); do sleep 0.1; done"
  )
  stand_in("scontrol", "")
  job = subprocess.Popen(
    ["bash", str(ROOT / "launch/slurm.sh"), "train"],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "SLURM_JOB_ID": "7", "SSL_JAX_SLURM": "inside"},
  )
  while not (tmp_path / "calls.ready").exists():
    time.sleep(0.02)
  job.send_signal(signal.SIGUSR1)
  output = job.communicate(timeout=30)[0]
  assert job.returncode == on_notice and ("is requeued" in output) == queued
  assert ("scontrol requeue 7" in calls(tmp_path)) == queued


def test_the_manifest_is_valid_and_consistent():
  validate = pytest.importorskip("kubernetes_validate")
  manifest = yaml.safe_load((ROOT / "launch/gke/jobset.yaml").read_text())
  assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"} and manifest["spec"].keys() == {
    "failurePolicy",
    "replicatedJobs",
  }
  (slices,) = manifest["spec"]["replicatedJobs"]
  assert slices.keys() == {"name", "replicas", "template"}
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **slices["template"]}
  validate.validate(job, validate.latest_version(), strict=True)
  broken = {**job, "spec": {**job["spec"], "paralelism": 16}}
  with pytest.raises(validate.ValidationError):
    validate.validate(broken, validate.latest_version(), strict=True)
  pod = job["spec"]["template"]["spec"]
  (container,) = pod["containers"]
  chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
  assert (
    job["spec"]["parallelism"]
    == job["spec"]["completions"]
    == chips // int(container["resources"]["limits"]["google.com/tpu"])
  )
  recipe = next(word for word in container["args"] if word.startswith("--config=")).removeprefix("--config=")
  assert (ROOT / recipe.split(":")[0]).is_file()
  assert {mount["name"] for mount in container["volumeMounts"]} == {
    volume["name"] for volume in pod["volumes"]
  }
