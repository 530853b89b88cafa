"""The launcher with a stand-in for gcloud: requests, preemptions, lost connections, what is kept."""

import functools
import re
import shlex
import shutil
import subprocess

import pytest

from ssl_jax.launching import cloud as cloud_module
from ssl_jax.launching import pod
from ssl_jax.launching.checkout import Checkout
from tests.launching.stand_in import Cloud

COMMAND = (
  "--",
  "train",
  "--config=configs/pretrain/moco.py:e",
  "--config.data.data_dir=gs://my-data/tfds",
  "--config.method.name=a 'b'",
  "--workdir=gs://my-runs/moco",
)
SLICE = ("--name=moco", "--zone=us-west4-a", "--type=v5litepod-64")
VERBS = (
  "create",
  "delete",
  "scp",
  "worker.sh install",
  "worker.sh start",
  "worker.sh follow",
  "worker.sh logs",
)
ONCE = ["create", "scp", "install", "start", "follow"]


@pytest.fixture
def use(tmp_path, monkeypatch):
  """use(cloud) puts a stand-in in the place of gcloud; the checkout has one file, and the check passes."""
  (tmp_path / "recipe.py").touch()
  checkout = Checkout(tmp_path, "0123456789ab-dirty", ("recipe.py",), ("?? recipe.py",))
  monkeypatch.setattr(pod, "find_checkout", lambda: checkout)
  monkeypatch.setattr(pod, "check", lambda command, copy, devices: f"batch 256 on {devices} devices")
  monkeypatch.setattr(pod, "PAUSE", 0.0)
  monkeypatch.setattr(pod.shutil, "which", lambda name: name)

  def put(cloud: Cloud) -> Cloud:
    monkeypatch.setattr(cloud_module.subprocess, "run", cloud.run)
    return cloud

  return put


def verbs(lines: list[str]) -> list[str]:
  """What changes something or connects, in order."""
  return [next(v.split()[-1] for v in VERBS if v in line) for line in lines if any(v in line for v in VERBS)]


def launch(*words: str) -> int:
  return pod.main([*SLICE, *words, *COMMAND])


def test_a_dry_run_prints_every_command_and_runs_none(use, capsys):
  cloud = use(Cloud())
  assert launch("--spot", "--labels=team=vision", "--create-option=--tags=tpu", "--dry-run") == 0
  told = capsys.readouterr().err
  lines = [line for line in told.splitlines() if line.startswith("+ ")]
  assert verbs(lines) == [*ONCE, "delete"] and not cloud.calls
  assert "queued-resources create moco --node-id=moco --accelerator-type=v5litepod-64 " in lines[0]
  assert "--runtime-version=v2-alpha-tpuv5-lite --async --spot --labels=team=vision --tags=tpu" in lines[0]
  assert lines[0].endswith("--zone=us-west4-a")
  assert "worker.sh install my-data my-runs" in lines[2] and "--node=all --worker=all" in lines[2]
  assert "data_dir=/tmp/gcs/my-data/tfds" in lines[3] and "gs://" not in lines[3]
  assert "--node=0 --worker=0" in lines[4] and "delete moco --force --quiet" in lines[5]
  assert "batch 256 on 64 devices" in told and "commit 0123456789ab-dirty\n  with ?? recipe.py" in told


def test_the_queue_is_waited_for_and_gcloud_may_fail_to_answer(use, capsys):
  queue = "WAITING_FOR_RESOURCES"
  cloud = use(Cloud(answers=["-", "-", queue, queue, "!backend error", queue, "ACTIVE"]))
  assert launch() == 0
  assert verbs(cloud.calls) == [*ONCE, "delete"]
  told = capsys.readouterr().err
  assert told.count(f"the slice is {queue}; waiting") == 1 and "no answer: backend error" in told


@pytest.mark.parametrize("state, expected", [("", ["create", "delete"]), ("CREATING", ["delete"])])
def test_a_request_that_is_not_met_in_time_is_deleted(use, state, expected, capsys):
  cloud = use(Cloud(state=state))
  assert launch("--patience=0") == 1
  assert verbs(cloud.calls) == expected and not cloud.state
  assert "no slice within --patience=0 hours; the request is deleted" in capsys.readouterr().err


def test_requests_that_fail_are_given_up(use, capsys):
  cloud = use(Cloud(answers=["-", *["-", "FAILED"] * 3]))
  assert launch() == 1
  assert verbs(cloud.calls) == ["create", "delete"] * 3
  assert "the request for the slice failed 3 times: quota exceeded" in capsys.readouterr().err


def test_gcloud_that_cannot_tell_whether_there_is_a_slice_creates_none(use, capsys):
  cloud = use(Cloud(answers=["!permission denied"]))
  assert launch() == 1 and not verbs(cloud.calls)
  assert "permission denied" in capsys.readouterr().err


def test_a_preempted_slice_is_replaced_and_the_command_is_started_again(use, capsys):
  cloud = use(Cloud(outcomes=["preempted", 0]))
  assert launch() == 0
  assert verbs(cloud.calls) == [*ONCE, "delete", *ONCE, "delete"]
  assert "interrupted, the slice is SUSPENDED; the command is started again" in capsys.readouterr().err


def test_lost_connections_start_nothing_again(use, capsys):
  cloud = use(Cloud(outcomes=["cut"] * 5))
  assert launch() == 0
  assert verbs(cloud.calls) == [*ONCE, *["follow"] * 5, "delete"]
  assert capsys.readouterr().err.count("the connection is lost") == 5


def test_a_command_that_fails_on_a_ready_slice_is_given_up_and_shows_all_logs(use, capsys):
  cloud = use(Cloud(outcomes=[3, 75, 3, 3]))
  assert launch() == 3
  again = ["scp", "install", "start", "follow"]
  assert verbs(cloud.calls) == ["create", *again, "logs", *again, *again, "logs", *again, "logs"]
  told = capsys.readouterr().err
  assert (
    "failed three times on a slice that is ready" in told and "asked to stop; it is started again" in told
  )


def test_a_command_that_fails_after_hours_is_not_given_up(use, monkeypatch):
  monkeypatch.setattr(pod, "LONG", -1.0)
  cloud = use(Cloud(outcomes=[1] * 5))
  assert launch() == 0 and verbs(cloud.calls).count("start") == 6


def test_a_slice_that_runs_the_same_command_is_only_followed(use):
  cloud = use(Cloud())
  assert launch("--keep") == 0 and cloud.state
  cloud.running, cloud.calls = True, []
  assert launch() == 0
  assert verbs(cloud.calls) == ["follow"]  # it was started with --keep, so it is kept
  cloud.calls = []
  assert launch() == 0
  assert verbs(cloud.calls) == ["scp", "install", "start", "follow", "delete"]


def test_another_command_on_a_busy_slice_is_refused(use, capsys):
  cloud = use(Cloud(state="ACTIVE", command="train --config=other.py"))
  assert launch() == 2
  assert not verbs(cloud.calls)
  assert "busy with another command:\n  train --config=other.py" in capsys.readouterr().err


@pytest.mark.parametrize(
  "keep, status, after", [(False, 0, ["follow", "delete"]), (True, 0, ["follow"]), (False, 4, ["follow"])]
)
def test_following_deletes_only_what_succeeded_and_was_not_to_be_kept(use, keep, status, after):
  cloud = use(Cloud(state="ACTIVE", command="train", keep=keep, outcomes=[status]))
  assert pod.main([*SLICE[:2], "--follow"]) == status
  assert verbs(cloud.calls) == after


def test_logs_and_deletion_need_a_slice(use, capsys):
  cloud = use(Cloud())
  assert pod.main([*SLICE[:2], "--logs"]) == 2 and "there is no slice moco" in capsys.readouterr().err
  cloud.state = "ACTIVE"
  assert pod.main([*SLICE[:2], "--logs"]) == 0 and "--node=all --worker=all" in cloud.calls[-1]
  assert pod.main([*SLICE[:2], "--delete"]) == 0 and not cloud.state


def test_several_slices_are_requested_together(use, capsys):
  use(Cloud())
  assert launch("--slices=2", "--dry-run") == 0
  told = capsys.readouterr().err
  assert "create moco --node-count=2 --node-prefix=moco" in told and "batch 256 on 128 devices" in told


def test_a_slice_is_created_without_the_queue(use, capsys):
  use(Cloud())
  assert launch("--direct", "--reserved", "--dry-run") == 0
  told = capsys.readouterr().err
  assert "tpu-vm create moco" in told and "--version=v2-alpha-tpuv5-lite --reserved" in told
  assert "queued" not in told and "--node" not in told


@pytest.mark.parametrize(
  "words, message",
  [
    (("--zone=z", "--type=t", "--", "train"), "--name is missing"),
    (("--name=Moco", "--zone=z", "--type=t", "--", "train"), "--name=Moco is no name of a slice"),
    ((*SLICE, "--sopt", "--", "train"), "unrecognized arguments: --sopt"),
    (SLICE, "the command after -- is missing"),
    ((*SLICE, "--slices=0", "--", "train"), "--slices=0 is too small"),
    ((*SLICE, "--slices=2", "--direct", "--", "train"), "--slices=2 needs the queue"),
    ((*SLICE, "--spot", "--reserved", "--", "train"), "exclude each other"),
    ((*SLICE, "--create-option=tags=x", "--", "train"), "'tags=x' is no option of gcloud"),
    ((*SLICE, "--follow", "--", "train"), "--follow takes no command"),
  ],
)
def test_wrong_options_are_named(words, message, capsys):
  with pytest.raises(SystemExit) as ended:
    pod.main(words)
  assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
@pytest.mark.parametrize("way", ["--slices=2", "--direct"])
def test_gcloud_knows_all_options(use, way, capsys):
  """The options of every command that is printed stand in gcloud's own help."""
  wide = {"--project", "--quiet", "--zone"}
  help_of = functools.cache(lambda *words: subprocess.run([*words, "--help"], capture_output=True).stdout)
  options = [
    "--labels=a=b",
    "--network=n",
    "--subnetwork=s",
    "--service-account=a@b",
    "--reserved",
    "--project=p",
  ]
  assert launch(way, *options, "--dry-run") == 0
  lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("+ ")]
  for line in lines:
    words = shlex.split(line)[1:]
    known = re.sub(rb".\x08|\x1b\[[0-9;]*m", b"", help_of(*words[:5])).decode()
    for option in {word.split("=")[0] for word in words if word.startswith("--")} - wide:
      assert re.search(rf"^\s+{option}\b", known, re.MULTILINE), (option, words[:5])
