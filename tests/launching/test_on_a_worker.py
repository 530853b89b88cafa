"""The whole way, with a gcloud that runs the workers' commands in a folder: archive, start, end, results."""

import json
import os
import pathlib
import socket
import sys

import pytest

from ssl_jax.launching import pod
from ssl_jax.launching.checkout import ROOT, find_checkout
from ssl_jax.run.commit import commit_of

# In bash, because gcloud is a command of its own; $CLOUD holds the state, $CLOUD/home is the worker's.
GCLOUD = """#!/usr/bin/env bash
line=''
for word; do case $word in --command=*) line=${word#--command=} ;; esac; done
case "$3 $4" in
  *" create") echo ACTIVE > "$CLOUD/state" ;;
  *" delete") rm "$CLOUD/state" ;;
  *" describe") [ -f "$CLOUD/state" ] || { echo NOT_FOUND >&2; exit 1; }
    [ "$3" = tpu-vm ] && echo READY || cat "$CLOUD/state" ;;
  *" scp") cp "$5" "$CLOUD/home/${6#*:}" ;;
  *" ssh") cd "$CLOUD/home" && bash -c "$line" ;;
esac
"""


def executable(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


@pytest.mark.slow
def test_a_run_is_launched_from_the_archive_and_its_results_name_the_commit(tmp_path, monkeypatch):
  worker, runs = tmp_path / "home" / "ssl_jax", tmp_path / "runs"
  executable(tmp_path / "bin" / "gcloud", GCLOUD)
  executable(worker / ".venv" / "bin" / "python", "#!/bin/sh\nexit 0\n")  # installs nothing
  executable(worker / ".venv" / "bin" / "ssl-jax", f'#!/bin/sh\nexec "{sys.executable}" -m ssl_jax "$@"\n')
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
  quick = {"SSL_JAX_POLL": "0.1", "JAX_PLATFORMS": "cpu", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
  for name, value in {"CLOUD": str(tmp_path), **job, **quick}.items():
    monkeypatch.setenv(name, value)
  monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, which compiles faster
  monkeypatch.setattr(pod, "PAUSE", 0.1)
  monkeypatch.setattr(pod, "check", lambda command, copy, devices: "")  # see test_command.py
  small = ["encoder.width=4", "data.split=train[:64]", "batch_size=32", "epochs=1.0", "augment.size=16"]
  train = ["train", "--config=configs/pretrain/supervised_sample.py", f"--workdir={runs}"]
  words = ["--name=a", "--zone=z", "--type=v5litepod-8", "--", *train, *(f"--config.{one}" for one in small)]
  assert pod.main(words) == 0, (worker / "job" / "log").read_text()
  start = json.loads((runs / "starts.jsonl").read_text())
  assert start["commit"] == commit_of(worker) == find_checkout(ROOT).commit != ""
  assert (worker / "ssl_jax" / "core.py").is_file() and not (worker / ".git").exists()
  assert not (tmp_path / "state").exists()  # the slice is deleted
