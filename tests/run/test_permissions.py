"""Who may read the files of a run, and that a run deletes nothing outside its folder."""

import os
import shutil

import pytest

from ssl_jax.run.lock import Lock
from ssl_jax.run.train import train
from tests.recipes import save
from tests.run.test_restore import mae, one_device  # noqa: F401


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_files_are_as_readable_as_the_umask_says(umask, tmp_path):
  before = os.umask(umask)
  try:
    train(mae(), tmp_path / "run")
    with Lock(tmp_path / "run"):
      found = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*")}
  finally:
    os.umask(before)
  assert len(found) > 10
  assert {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in found} == found


def test_a_checkpoint_that_is_a_link_is_refused_before_its_files_are_deleted(tmp_path):
  workdir, store = save(mae(), tmp_path / "run", steps=(4,)), tmp_path / "store"
  step = workdir / "checkpoints" / "step_4"
  shutil.move(step, store)
  step.symlink_to(store)
  with pytest.raises(
    ValueError, match=f"{step} is a link to {store}, whose files would be deleted .* by a copy"
  ):
    train(mae(), workdir)
  assert (store / "digests.json").exists()


def test_rows_are_not_removed_from_a_file_that_a_link_leads_to(tmp_path):
  workdir, outside = tmp_path / "run", tmp_path / "notes.txt"
  workdir.mkdir()
  outside.write_text("not a row of metrics\n")
  (workdir / "metrics.jsonl").symlink_to(outside)
  train(mae(), workdir)
  assert outside.read_text() == "not a row of metrics\n"
  assert (workdir / "metrics.jsonl").read_text().startswith('{"step"')
