"""Drills: over thousands of steps, memory and open files do not grow and nothing is compiled again."""

import os
import pathlib
import re

import pytest

from tests.run.test_train import RECIPE, rows, start, wait_for

LONG = os.environ.get("SSL_JAX_DRILLS") == "long"
EARLY, LATE = (2_000, 20_000) if LONG else (200, 800)
ALLOWED = 1.05 if LONG else 1.15  # the short form has not settled
pytestmark = pytest.mark.drills


def seen(number: int) -> tuple[int, int]:
  """Returns (resident kilobytes, open files) of a process."""
  status = pathlib.Path(f"/proc/{number}/status").read_text()
  return int(re.search(r"VmRSS:\s+(\d+)", status)[1]), len(os.listdir(f"/proc/{number}/fd"))


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_and_files_do_not_grow_and_nothing_is_compiled_again(tmp_path, monkeypatch):
  recipe = tmp_path / "tiny.py"
  recipe.write_text(
    RECIPE.replace("epochs=15.0, log_every=5", f"epochs={LATE / 4}, log_every={EARLY // 10}").replace(
      "every_steps=10", f"every_steps={EARLY}"
    )
  )
  monkeypatch.setenv("JAX_LOG_COMPILES", "1")
  process = start(recipe, tmp_path / "run")
  moments = []
  for step in (EARLY, LATE - EARLY // 10):
    wait_for(lambda step=step: any(row["step"] >= step for row in rows(tmp_path / "run")), process)
    moments.append(seen(process.pid))
  output, _ = process.communicate()
  assert process.returncode == 0, output
  (memory, files), (later, still) = moments
  print(
    f"resident {memory / 1024:.0f} MB at step {EARLY}, {later / 1024:.0f} MB at {LATE - EARLY // 10}; "
    f"{files} and {still} files open"
  )
  assert later < ALLOWED * memory and still <= files + 2
  after = output.split(f"step {EARLY // 10}/")[1]
  assert "Compiling" not in after and "Finished XLA compilation" not in after
