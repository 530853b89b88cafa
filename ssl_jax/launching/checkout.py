"""The copy of the checkout that the workers install."""

from __future__ import annotations

import pathlib
import tarfile
from typing import NamedTuple

from ssl_jax.run.commit import FILE, commit_of, git

MOST_UNTRACKED = 20 * 2**20  # bytes; more is data rather than sources
ROOT = pathlib.Path(__file__).resolve().parents[2]


class Checkout(NamedTuple):
  """The files of a checkout as they lie there, whether committed or not."""

  root: pathlib.Path
  commit: str  # with "-dirty" if the files are not those of the commit
  files: tuple[str, ...]  # paths relative to `root`: tracked, and untracked unless git ignores them
  changes: tuple[str, ...]  # lines of `git status`


def find_checkout(root: pathlib.Path = ROOT) -> Checkout:
  """Lists the files of the checkout.

  Raises: ValueError if `root` is no git checkout, or if files that git does not track are too large for
    sources.
  """
  commit = commit_of(root) if (root / ".git").exists() else ""
  if not commit:
    raise ValueError(f"{root} is no git checkout with a commit; the workers get their files from one")
  tracked = _paths(git(root, "ls-files", "-z"))
  untracked = _paths(git(root, "ls-files", "-z", "--others", "--exclude-standard"))
  sizes = {name: (root / name).stat().st_size for name in untracked if (root / name).is_file()}
  if sum(sizes.values()) > MOST_UNTRACKED:
    largest = max(sizes, key=lambda name: sizes[name])
    raise ValueError(
      f"{len(sizes)} files that git does not track, of {sum(sizes.values()) / 2**20:.0f} MiB, would be "
      f"copied to every worker, such as {largest}; move them out of the checkout, or name them in .gitignore"
    )
  files = sorted({name for name in (*tracked, *untracked) if (root / name).is_file()})
  changes = tuple(git(root, "status", "--porcelain", "--untracked-files=all").splitlines())
  return Checkout(root, commit, tuple(files), changes)


def pack(checkout: Checkout, archive: pathlib.Path) -> None:
  """Writes the files, and a file with the commit, into a tar archive."""
  with tarfile.open(archive, "w") as tar:
    for name in checkout.files:
      tar.add(checkout.root / name, name)
    commit = archive.with_suffix(".commit")
    commit.write_text(f"{checkout.commit}\n", encoding="utf-8")
    tar.add(commit, FILE)


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
  """Unpacks an archive of `pack` into a folder."""
  with tarfile.open(archive) as tar:
    tar.extractall(folder, filter="data")


def _paths(listed: str) -> list[str]:
  return [name for name in listed.split("\0") if name]
