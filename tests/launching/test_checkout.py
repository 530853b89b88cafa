"""The archive of a checkout: uncommitted changes, untracked sources, and the commit for results."""

import pathlib
import subprocess
import tarfile

import pytest

from ssl_jax.launching import checkout
from ssl_jax.run import commit


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """A git checkout with one commit, of a recipe and a README."""
  folder = tmp_path / "checkout"
  (folder / "configs").mkdir(parents=True)
  (folder / "configs" / "recipe.py").write_text("a = 1\n")
  (folder / "README.md").write_text("read me\n")
  (folder / ".gitignore").write_text("runs/\n")
  git(folder, "init", "-q")
  git(folder, "add", ".")
  git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
  return folder


def git(folder: pathlib.Path, *words: str) -> str:
  found = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
  return found.stdout.strip()


def test_the_commit_names_changes_and_untracked_sources(root):
  head = git(root, "rev-parse", "--short=12", "HEAD")
  assert commit.commit_of(root) == head
  (root / "notes.txt").touch()  # no source
  assert commit.commit_of(root) == head
  (root / "configs" / "mine.py").touch()
  assert commit.commit_of(root) == f"{head}-dirty"
  (root / "configs" / "mine.py").unlink()
  (root / "README.md").write_text("changed\n")
  assert commit.commit_of(root) == f"{head}-dirty"


def test_a_copy_is_the_checkout_as_it_lies_there_and_knows_its_commit(root, tmp_path):
  (root / "configs" / "mine.py").write_text("b = 2\n")
  (root / "configs" / "recipe.py").write_text("a = 3\n")
  (root / "README.md").unlink()
  (root / "runs").mkdir()
  (root / "runs" / "checkpoint").touch()
  found = checkout.find_checkout(root)
  assert found.files == (".gitignore", "configs/mine.py", "configs/recipe.py")
  assert found.changes == (" D README.md", " M configs/recipe.py", "?? configs/mine.py")
  checkout.pack(found, tmp_path / "a.tar")
  checkout.unpack(tmp_path / "a.tar", tmp_path / "copy")
  assert (tmp_path / "copy" / "configs" / "recipe.py").read_text() == "a = 3\n"
  assert commit.commit_of(tmp_path / "copy") == found.commit == commit.commit_of(root)
  assert found.commit.endswith("-dirty")
  with tarfile.open(tmp_path / "a.tar") as tar:
    assert sorted(tar.getnames()) == [".commit", *found.files]


def test_data_among_the_sources_are_refused(root):
  with open(root / "configs" / "images.npy", "wb") as file:
    file.truncate(checkout.MOST_UNTRACKED + 1)
  with pytest.raises(ValueError, match="1 files that git does not track, of 20 MiB.*configs/images.npy"):
    checkout.find_checkout(root)


def test_a_folder_without_git_is_refused_and_has_no_commit(tmp_path):
  with pytest.raises(ValueError, match="is no git checkout with a commit"):
    checkout.find_checkout(tmp_path)
  assert commit.commit_of(tmp_path) == ""
