"""Decides which files of a folder are images or clips, and which of its folders are splits and classes.

The rules are written in `folder.open_folder`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
OTHER_PICTURES = frozenset(
  ".apng .avif .bmp .dib .dng .gif .heic .heif .jfif .jp2 .jpe .jxl .pbm .pgm .ppm .tga .tif .tiff".split()
)
SPLIT_WORDS = {  # what a folder is called -> the name of the split
  **{word: word for word in "train test val valid validation eval evaluation dev holdout pred extra".split()},
  "training": "train",
  "testing": "test",
  "unlabeled": "unlabeled",
  "unlabelled": "unlabeled",
}
_WORDS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_FIRST = re.compile(rf"(?P<word>{_WORDS})(?P<rest>([^a-z].*|set|)$)")
_LAST = re.compile(rf"(?P<rest>.*[^a-z])(?P<word>{_WORDS})$")


class Kind(NamedTuple):
  """What a folder is searched for."""

  noun: str
  suffixes: tuple[str, ...]  # of the files, in lower case
  others: frozenset[str]  # suffixes of files that look as if they were to be read, but cannot be
  advice: str  # what to convert those to
  plain: tuple[str, ...]  # names of a folder that is no class if it is the only one
  # whether a folder that holds files of these names, and no folder, is itself one of what is searched for
  is_whole: Callable[[Sequence[str]], bool] | None = None

  def matches(self, path: str) -> bool:
    """Whether a path that `_walk` yields is what is searched for."""
    return _ends(path, self.suffixes) or (self.is_whole is not None and os.path.isdir(path))

  def known(self) -> str:
    """The end of a message about files that are not read."""
    return f"known file name extensions: {', '.join(self.suffixes)}"


IMAGES = Kind("image", EXTENSIONS, OTHER_PICTURES, "PNG, JPEG or WebP", ("images",))


class Files(NamedTuple):
  """The images or clips below a folder, and the other files."""

  paths: list[str]  # relative to the folder of the data set, sorted
  others: collections.Counter  # files that are not read: suffix -> number


class SplitName(NamedTuple):
  """What the name of a folder says: "seg_train" is the split "train" with the addition "seg"."""

  split: str
  addition: str


def find_splits(root: pathlib.Path, kind: Kind = IMAGES) -> dict[str, pathlib.Path]:
  """Returns the folder of each split; {"train": root} if `root` is not divided into splits.

  Raises: ValueError if `root` is no folder, if two folders are the same split, or if other folders with
    images or clips lie beside those of splits.
  """
  if not root.is_dir():
    raise ValueError(f"data_dir={str(root)!r} is not a folder; give the one that holds the {kind.noun}s")
  inside = folders(root)
  group = _split_group(inside)
  if (
    not group
    and len(inside) > 1
    and all(map(split_name, inside))
    and any(class_folders(root / name, kind) for name in inside)
  ):
    raise ValueError(
      f"{root} holds the folders {', '.join(inside[:5])}, which look like splits, but not of one data set; "
      "call them train and test, or rename them if they are classes"
    )
  if not group:
    return {"train": root}
  others = [name for name in inside if name not in group and _holds(root / name, kind, itself=True)]
  if others and len(group) == 1 and not any(class_folders(root / name, kind) for name in group):
    return {"train": root}  # a class that is called train
  if others:
    raise ValueError(
      f"{root} holds the folders {', '.join(group)}, which are splits, and beside them "
      f"{', '.join(others[:5])}; move the others away, or rename the folders if they are classes"
    )
  found: dict[str, pathlib.Path] = {}
  for name, split in group.items():
    if split in found:
      raise ValueError(
        f"{root} holds the folders {found[split].name} and {name}, which are both the split {split!r}; "
        "rename or join them"
      )
    found[split] = root / name
  return found


def plain_splits(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folder of each split in `folder`, without regard to other folders beside them."""
  named = {name: split_name(name) for name in folders(folder)}
  return {found.split: folder / name for name, found in named.items() if found and not found.addition}


def _split_group(names: list[str]) -> dict[str, str]:
  """Returns {folder: split} of the folders that are splits: plain names, or several with one addition."""
  known = {name: found for name in names if (found := split_name(name))}
  plain = {name: found.split for name, found in known.items() if not found.addition}
  longer: dict[str, dict[str, str]] = {}
  for name, found in known.items():
    if found.addition:
      longer.setdefault(found.addition, {})[name] = found.split
  most = max(longer.values(), key=len, default={})
  if len(set(most.values())) > 1 or len(plain) + len(most) == len(names):
    return {**plain, **most}
  return plain


def split_name(name: str) -> SplitName | None:
  """Reads the name of a folder; None if it is not that of a split."""
  text = name.casefold()
  found = _FIRST.fullmatch(text) or _LAST.fullmatch(text)
  if not found:
    return None
  addition = re.sub("[^a-z0-9]", "", found["rest"])
  return SplitName(SPLIT_WORDS[found["word"]], "" if addition == "set" else addition)


def class_folders(folder: pathlib.Path, kind: Kind = IMAGES) -> list[str]:
  """Lists the folders that hold an image or clip at any depth, sorted by name.

  Raises: ValueError if a folder holds pictures or videos, but none in a known format, or splits itself.
  """
  found = []
  for name in folders(folder):
    if _holds(folder / name, kind):
      found.append(name)
      within = [SPLIT_WORDS.get(inner.casefold()) for inner in folders(folder / name)]
      if len({split for split in within if split} & {"train", "test", "val", "valid", "validation"}) > 1:
        raise ValueError(
          f"{folder / name} would be a class, but it holds the folders of splits; use a folder for each "
          "split that holds the folders of the classes, or give the inner one as data_dir"
        )
      continue
    others = files_below(folder / name, folder, kind=kind).others
    similar = collections.Counter({suffix: n for suffix, n in others.items() if suffix in kind.others})
    if similar:
      raise ValueError(
        f"{folder / name} holds no {kind.noun} in a known format, but {counts(similar)}; convert them to "
        f"{kind.advice}, or move the folder away; {kind.known()}"
      )
  return found


def files_below(folder: pathlib.Path, base: pathlib.Path, *, deep: bool = True, kind: Kind = IMAGES) -> Files:
  """Lists the images or clips in a folder, and in its subfolders unless `deep` is false."""
  others: collections.Counter = collections.Counter()
  paths, start = [], len(os.path.join(folder, ""))
  prefix = os.path.relpath(folder, base)
  for path in _walk(str(folder), kind, deep=deep, hidden=others):
    if kind.matches(path):
      paths.append(path[start:] if prefix == "." else os.path.join(prefix, path[start:]))
    else:
      others[os.path.splitext(path)[1].lower() or "without suffix"] += 1
  return Files(sorted(paths), others)


def folders(root: pathlib.Path) -> list[str]:
  """Lists the folders in `root` that are not hidden, sorted."""
  with _scan(str(root)) as entries:
    return sorted(entry.name for entry in entries if _is_folder(entry) and not _hidden(entry, True))


def is_image(path: str) -> bool:
  """Whether the name of a file is that of an image."""
  return _ends(path, EXTENSIONS)


def listed_classes(folder: pathlib.Path, inside: pathlib.Path, kind: Kind = IMAGES) -> dict[str, str]:
  """Reads the classes of files without class folders from `folder`/*_annotations.txt: {file name: class}.

  A line holds the name of a file, a tab and its class, as in the validation images of Tiny ImageNet; what
  follows after another tab is ignored. {}: there is no such file.

  Raises: ValueError if there are two such files, a line has no class, or not exactly the files are listed.
  """
  found = sorted(folder.glob("*_annotations.txt"))
  if not found:
    return {}
  if len(found) > 1:
    raise ValueError(f"{folder} holds {len(found)} files *_annotations.txt; keep the one with the classes")
  listed = {}
  for number, line in enumerate(found[0].read_text(encoding="utf-8").splitlines(), 1):
    name, *rest = line.split("\t")
    if line.strip() and not (rest and rest[0].strip()):
      raise ValueError(f"{found[0]}, line {number}: no class after the file name {name!r}; separate by a tab")
    if line.strip():
      listed[name] = rest[0].strip()
  present = {os.path.basename(path) for path in files_below(inside, inside, kind=kind).paths}
  for names, problem, where in (
    (present - listed.keys(), "does not list", "which is"),
    (listed.keys() - present, "lists", "which is not"),
  ):
    if names:
      more = f" and {len(names) - 1} more" if len(names) > 1 else ""
      raise ValueError(
        f"{found[0]} {problem} {min(names)}{more}, {where} in {inside}; it must list exactly the "
        f"{kind.noun}s there"
      )
  return listed


def counts(kinds: collections.Counter) -> str:
  """Writes {".bmp": 12, "hidden": 3} as "12 .bmp, 3 hidden"."""
  return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if count > 0)


def _holds(folder: pathlib.Path, kind: Kind, *, itself: bool = False) -> bool:
  """Whether there is an image or clip in a folder at any depth; or, with `itself`, the folder is one."""
  with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the quick answer of most folders
    if any(_ends(entry.name, kind.suffixes) and entry.is_file(follow_symlinks=False) for entry in entries):
      return True
  return (itself and _is_whole(str(folder), kind)) or any(map(kind.matches, _walk(str(folder), kind)))


def _is_whole(folder: str, kind: Kind) -> bool:
  if kind.is_whole is None:
    return False
  entries = [entry for entry in _entries(folder) if not _hidden(entry, _is_folder(entry))]
  return not any(map(_is_folder, entries)) and kind.is_whole([entry.name for entry in entries])


def _ends(path: str, suffixes: tuple[str, ...]) -> bool:
  name = os.path.basename(path)
  return name.lower().endswith(suffixes) and not name.startswith(".")


def _walk(
  folder: str, kind: Kind, *, deep: bool = True, hidden: collections.Counter | None = None
) -> Iterator[str]:
  """Yields the path of every file below a folder that is not hidden, and of every folder that is a clip.

  A folder is entered once, and never one that contains `folder`, so that a link which leads up ends.
  """
  path = pathlib.Path(folder).absolute()
  above = [path.resolve(), *path.resolve().parents, *(parent.resolve() for parent in path.parents)]
  entered = set(map(str, above))
  waiting = [folder]
  while waiting:
    for entry in _entries(waiting.pop()):
      folder_inside = _is_folder(entry)
      if _hidden(entry, folder_inside):
        if hidden is not None:
          hidden["hidden"] += 1
      elif not folder_inside:
        if entry.is_symlink() or entry.is_file():  # not a socket or a pipe; a broken link is named when read
          yield entry.path
      elif (real := os.path.realpath(entry.path)) not in entered and _is_whole(entry.path, kind):
        entered.add(real)
        yield entry.path
      elif deep and real not in entered:
        entered.add(real)
        waiting.append(entry.path)


def _entries(folder: str) -> list[os.DirEntry]:
  with _scan(folder) as entries:
    return sorted(entries, key=lambda entry: entry.name)


def _scan(folder: str):
  try:
    return os.scandir(folder)
  except OSError as error:
    raise ValueError(
      f"the folder {folder} cannot be read: {error.strerror}; change its permissions"
    ) from error


def _is_folder(entry: os.DirEntry) -> bool:
  return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _hidden(entry: os.DirEntry, is_folder: bool) -> bool:
  if entry.name.startswith("."):
    return True
  return is_folder and (entry.name.startswith("__") or entry.name.casefold() == "@eadir")
