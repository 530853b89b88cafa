"""Reading checkpoints that are damaged, or that a run that is being trained deletes."""

import pathlib
import shutil

import numpy as np
import pytest

from ssl_jax.run import checkpoint, digests
from ssl_jax.run.checkpoint import Checkpoints
from ssl_jax.run.restore import CheckpointMissing, restore
from ssl_jax.view import reconstructions
from tests.recipes import save
from tests.run.test_restore import finetune, first_state, mae, one_device  # noqa: F401

# Orbax closes its event loop when a read fails, while other reads are still pending.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
  return save(mae(), tmp_path_factory.mktemp("mae"), steps=(4, 8))


@pytest.fixture
def workdir(saved, tmp_path) -> pathlib.Path:
  return shutil.copytree(saved, tmp_path / "run")


def folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
  return workdir / "checkpoints" / f"step_{step}"


def flip_a_bit(path: pathlib.Path) -> None:
  file = max(path.rglob("d/*"), key=lambda file: file.stat().st_size)
  content = file.read_bytes()
  file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_damaged_checkpoint_that_is_asked_for_is_refused_by_name(workdir):
  flip_a_bit(folder(workdir, 4))
  message = (
    rf"step 4 of {workdir} is damaged: .* differs from what was saved. Choose another step of \[4, 8\]"
  )
  with pytest.raises(ValueError, match=message):
    restore(workdir, step=4)
  with pytest.raises(ValueError, match=message):
    first_state(finetune(workdir, start=dict(step=4)))
  with pytest.raises(ValueError, match=message):
    reconstructions._over_epochs(str(workdir), None, 0.75, None, None)
  assert restore(workdir, step=8).step == restore(workdir).step == 8


def test_only_the_checkpoint_that_is_asked_for_is_checked_and_once(workdir, monkeypatch):
  checked, real = [], digests.find_damage
  monkeypatch.setattr(digests, "find_damage", lambda path: checked.append(path.name) or real(path))
  flip_a_bit(folder(workdir, 8))
  assert restore(workdir, step=4).step == 4
  assert checked == ["step_4"]


def delete_while_it_is_read(workdir, monkeypatch, *, first: str) -> None:
  """Saves step 12 and deletes step 8, of which it leaves all but the files `first` for a moment."""
  real = Checkpoints.restore_weights

  def restore_weights(self, step, *args, **options):
    if step == 8:
      shutil.copytree(folder(workdir, 8), folder(workdir, 12))
      for path in list(folder(workdir, 8).rglob(first)):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return real(self, step, *args, **options)

  monkeypatch.setattr(Checkpoints, "restore_weights", restore_weights)
  listed = Checkpoints.is_intact

  def is_intact(self, step):  # the deletion goes on
    found = listed(self, step)
    shutil.rmtree(folder(workdir, step))
    return found

  monkeypatch.setattr(Checkpoints, "is_intact", is_intact)


@pytest.mark.parametrize("first", ["model", "d", "*"])
def test_the_then_last_is_read_if_a_run_deletes_the_last(workdir, monkeypatch, first, capsys):
  expected = restore(workdir).backbone.weights.params
  delete_while_it_is_read(workdir, monkeypatch, first=first)
  found = restore(workdir)
  assert found.step == 12 and found.backbone.protocol["step"] == 12
  np.testing.assert_array_equal(found.backbone.weights.params["encoder"]["cls"], expected["encoder"]["cls"])
  assert not capsys.readouterr().out


def test_one_that_is_deleted_before_it_is_checked_does_not_count_as_damaged(workdir, monkeypatch, capsys):
  real, moments = digests.find_damage, []

  def find_damage(path):
    if not moments:
      moments.append(shutil.copytree(folder(workdir, 8), folder(workdir, 12)))
      shutil.rmtree(folder(workdir, 8) / "model")
      shutil.rmtree(folder(workdir, 4))
    return real(path)

  monkeypatch.setattr(digests, "find_damage", find_damage)
  assert restore(workdir).step == 12
  assert not capsys.readouterr().out


def test_one_that_is_asked_for_and_deleted_is_missed_by_name(workdir, monkeypatch):
  delete_while_it_is_read(workdir, monkeypatch, first="model")
  with pytest.raises(
    CheckpointMissing, match=rf"deleted the checkpoint of step 8 of {workdir} while .* \[4, 12\] now"
  ):
    restore(workdir, step=8)


def test_a_checkpoint_without_digests_that_lacks_data_is_not_read_as_zeros(workdir):
  for path in (folder(workdir, 8) / digests.DIGESTS, *folder(workdir, 8).rglob("d/*")):
    path.unlink()
  with pytest.raises(Exception, match="(?i)not.found|no such file|does not exist|error"):
    restore(workdir, step=8)


def test_a_listing_that_meets_a_deletion_is_repeated_and_a_lasting_error_is_raised():
  calls = []

  def vanishing():
    calls.append(1)
    if len(calls) < 3:
      raise FileNotFoundError("step_270")
    return [275]

  assert checkpoint._despite_deletions(vanishing) == [275] and len(calls) == 3

  def missing():
    raise FileNotFoundError("no such folder")

  with pytest.raises(FileNotFoundError, match="no such folder"):
    checkpoint._despite_deletions(missing)
