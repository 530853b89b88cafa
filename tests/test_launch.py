"""Launch scripts with stand-ins for gcloud, Slurm and ssl-jax; the manifest against Kubernetes' schema."""

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
COMMAND = (
  "--",
  "train",
  "--config=configs/pretrain/moco.py:e",
  "--config.data.data_dir=gs://my-data/tfds",
  "--config.method.name=a 'b'",
  "--workdir=gs://my-runs/moco",
)
SLICE = ("--name=moco", "--zone=us-west4-a", "--type=v5litepod-64")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """stand_in(name, script) puts a bash script on the PATH before the command `name` and records its calls."""
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
  monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
  monkeypatch.setenv("SSL_JAX_PAUSE", "0")

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


def test_a_dry_run_prints_every_command_and_runs_none(stand_in, tmp_path):
  stand_in("gcloud", "exit 1")
  found = call("tpu_pod.sh", *SLICE, "--spot", "--dry-run", *COMMAND)
  lines = [line for line in found.stderr.splitlines() if line.startswith("+ ")]
  assert found.returncode == 0 and not calls(tmp_path)
  assert [
    word
    for line in lines
    for word in (" create ", " git ", " scp ", " install ", " start ", " follow ", " delete ")
    if word in line.replace("\\", "").replace("follow", "follow ")
  ] == [" create ", " git ", " scp ", " install ", " start ", " follow ", " delete "]
  assert "--accelerator-type=v5litepod-64 --version=v2-alpha-tpuv5-lite --spot" in lines[0]
  install, start = (
    next(line for line in lines if word in line).replace("\\", "")
    for word in ("install", "worker.sh\\ start")
  )
  assert "install my-data my-runs" in install
  assert (
    "data_dir=/tmp/gcs/my-data/tfds" in start
    and "--workdir=/tmp/gcs/my-runs/moco" in start
    and "gs://" not in start
  )


def test_a_preempted_slice_is_replaced_and_the_command_is_started_again(stand_in, tmp_path):
  stand_in(
    "gcloud",
    """
    state=$(dirname "$CALLS")/state
    case "$*" in
      *describe*) cat "$state" 2> /dev/null ;;
      *create*) echo READY > "$state" ;;
      *delete*) rm "$state" ;;
      *follow*) [ -f "$state.once" ] && exit 0; touch "$state.once"; echo PREEMPTED > "$state"; exit 1 ;;
    esac""",
  )
  found = call("tpu_pod.sh", *SLICE, *COMMAND)
  assert found.returncode == 0, found.stderr
  assert "interrupted, the slice is PREEMPTED; the command is started again" in found.stderr
  verbs = [
    verb
    for line in calls(tmp_path)
    for verb in ("create", "scp", "install", "start", "follow", "delete")
    if f" {verb}" in line
  ]
  once = ["create", "scp", "install", "start", "follow"]
  assert verbs == [*once, "delete", *once, "delete"]


def test_a_command_that_fails_on_a_ready_slice_is_given_up_after_three_attempts(stand_in, tmp_path):
  stand_in("gcloud", 'case "$*" in *describe*) echo READY ;; *follow*) exit 3 ;; esac')
  found = call("tpu_pod.sh", *SLICE, *COMMAND)
  assert found.returncode == 1 and "failed three times on a slice that is ready" in found.stderr
  assert sum("follow" in line for line in calls(tmp_path)) == 3 and not any(
    "delete" in line for line in calls(tmp_path)
  )


@pytest.mark.parametrize(
  "script, words, message",
  [
    ("tpu_pod.sh", ("--zone=z", "--type=t", "--", "train"), "--name is missing"),
    ("tpu_pod.sh", (*SLICE, "--sopt", "--", "train"), "unknown option --sopt"),
    ("tpu_pod.sh", SLICE, "the command after -- is missing"),
    ("slurm.sh", ("--gpus=8", "--", "train"), "--nodes= is not a number of machines"),
    ("slurm.sh", ("--nodes=2", "--gpus=eight", "--", "train"), "--gpus=eight is not a number"),
    ("slurm.sh", ("--nodes=2", "--gpus=8"), "the command after -- is missing"),
  ],
)
def test_missing_and_misspelt_options_are_named(script, words, message):
  found = call(script, *words)
  assert found.returncode == 2 and message in found.stderr
  assert call(script, "--help").stdout.startswith(f"Usage: launch/{script}")


def test_a_worker_runs_the_command_once_and_passes_on_log_and_status(tmp_path):
  shutil.copytree(ROOT / "launch", tmp_path / "launch")
  command = tmp_path / "command"
  command.write_text(
    '#!/usr/bin/env bash\necho "distributed $SSL_JAX_DISTRIBUTED: $*"; echo run >> runs; sleep 2; exit 75\n'
  )
  command.chmod(0o755)
  worker = ["bash", str(tmp_path / "launch" / "worker.sh")]
  environment = {**os.environ, "SSL_JAX": str(command), "SSL_JAX_POLL": "0.1"}
  for _ in range(2):  # the second call finds the command running
    subprocess.run([*worker, "start", "train", "--x=a 'b'"], env=environment, check=True, timeout=30)
  found = subprocess.run([*worker, "follow"], env=environment, capture_output=True, text=True, timeout=30)
  assert found.returncode == 75 and "distributed 1: train --x=a 'b'" in found.stdout
  assert (tmp_path / "runs").read_text() == "run\n"


def test_slurm_runs_one_process_per_gpu(stand_in, tmp_path):
  stand_in("sbatch", "")
  found = call("slurm.sh", "--nodes=4", "--gpus=8", "--time=1:00", *COMMAND[:3])
  (line,) = calls(tmp_path)
  assert (
    found.returncode == 0
    and "--nodes=4 --ntasks-per-node=8 --gpus-per-node=8" in line
    and "--time=1:00" in line
  )
  assert line.endswith("slurm.sh train --config=configs/pretrain/moco.py:e")
  assert (
    call("slurm.sh", "--nodes=4", "--gpus=8", "--dry-run", *COMMAND[:3]).returncode == 0
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
