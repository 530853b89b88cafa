"""Drills: runs are killed at any moment, run out of disk space, or find a damaged checkpoint.

A run loses at most the steps since its last checkpoint. The short form runs with the other tests, the long
form with `bash launch/drills.sh`, which prints its results in the last lines.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from ssl_jax.run import digests
from ssl_jax.run.checkpoint import Checkpoints
from tests.run.test_train import TOTAL, finish, last_state, recipe_file, start, undisturbed, wait_for  # noqa: F401

LONG = os.environ.get("SSL_JAX_DRILLS") == "long"
KILLS, FLIPS = (30, 30) if LONG else (4, 3)
pytestmark = pytest.mark.drills


def started(workdir: pathlib.Path) -> int:
  path = workdir / "starts.jsonl"
  return path.read_text().count("\n") if path.exists() else 0


def equal(state, expected) -> None:
  jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_killed_at_random_moments_it_ends_bit_identical(recipe_file, undisturbed, tmp_path, record_property):  # noqa: F811
  rng, ended, saving = random.Random(0), 0, 0
  workdir = tmp_path / "run"
  for kill in range(KILLS):
    before = started(workdir)
    process = start(recipe_file, workdir)
    wait_for(lambda before=before: started(workdir) > before, process)
    if kill % 3 == 1:  # during a save
      checkpoints = workdir / "checkpoints"
      wait_for(  # which calls the function before the next iteration
        lambda: any("tmp" in path.name for path in checkpoints.glob("step*")) or process.poll() is not None,  # noqa: B023
        process,
      )
    else:
      time.sleep(rng.uniform(0, 4))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    saving += any("tmp" in path.name for path in (workdir / "checkpoints").glob("step*"))
    if (workdir / "checkpoints").exists():
      with Checkpoints(workdir) as checkpoints:  # the chosen checkpoint is intact
        found, problems = checkpoints.latest()
        assert not problems and (found == 0 or checkpoints.config(found))
      if found == TOTAL:
        equal(last_state(recipe_file, workdir), undisturbed[1])
        shutil.rmtree(workdir)
        ended += 1
  finish(start(recipe_file, workdir))
  equal(last_state(recipe_file, workdir), undisturbed[1])
  print(f"killed {KILLS} times, {saving} of them during a save; {ended + 1} runs ended bit-identical")


def test_out_of_space_is_said_and_nothing_is_lost(recipe_file, undisturbed, tmp_path):  # noqa: F811
  disk = tmp_path / "disk"
  disk.mkdir()
  if subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True
  ).returncode:
    pytest.skip("a small disk needs root")
  try:
    workdir, ballast = disk / "run", disk / "ballast"
    process = start(recipe_file, workdir)
    wait_for(
      lambda: any(
        path.name.isdigit() or "tmp" not in path.name for path in (workdir / "checkpoints").glob("step_*")
      ),
      process,
    )
    try:
      with ballast.open("wb") as file:
        while True:
          file.write(b"\0" * 65536)
          file.flush()
    except OSError:
      pass
    output = finish(process, 1)
    # Orbax's threads may print errors of their own before, after and in between.
    _, _, said = output.partition(f"ssl-jax: no space left on the disk of {workdir}: ")
    assert "run the same command again to resume" in said, output
    with Checkpoints(workdir) as checkpoints:
      found, problems = checkpoints.latest()
    assert 0 < found < TOTAL and not problems
    ballast.unlink()
    assert f"resuming at step {found} of {TOTAL}" in finish(start(recipe_file, workdir))
    equal(last_state(recipe_file, workdir), undisturbed[1])
  finally:
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", range(FLIPS))
def test_a_damaged_checkpoint_is_named_and_passed_over(number, recipe_file, undisturbed, tmp_path):  # noqa: F811
  workdir, rng = tmp_path / "run", random.Random(number)
  shutil.copytree(undisturbed[0], workdir)
  folder = workdir / "checkpoints" / f"step_{TOTAL}"
  without = (digests.DIGESTS, digests.WITHOUT_DIGEST)
  digested = sorted(
    path for path in folder.rglob("*") if path.is_file() and path.name not in without and path.stat().st_size
  )
  path = rng.choice(digested)
  if number % 3 == 2:
    path.unlink()
  else:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
  output = finish(start(recipe_file, workdir))
  name = path.relative_to(folder).as_posix()
  damage = "is missing" if number % 3 == 2 else "differs from what was saved"
  assert f"the checkpoint of step {TOTAL} is damaged: {name} {damage}" in output
  assert f"resuming from step {TOTAL - 10}" in output
  equal(last_state(recipe_file, workdir), undisturbed[1])
  assert [path.name[: len("step_60")] for path in (workdir / "damaged").iterdir()] == [f"step_{TOTAL}"]
