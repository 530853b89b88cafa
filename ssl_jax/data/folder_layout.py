"""Decides which files of a folder are images, and which of its folders are splits and classes.

The rules are written in `folder.open_folder`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
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


class Files(NamedTuple):
  """The files below a folder."""

  images: list[str]  # paths relative to the folder of the data set, sorted
  others: collections.Counter  # files that are not read: suffix -> number


class SplitName(NamedTuple):
  """What the name of a folder says: "seg_train" is the split "train" with the addition "seg"."""

  split: str
  addition: str


def find_splits(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the folder of each split; {"train": root} if `root` is not divided into splits.

  Raises: ValueError if `root` is no folder, if two folders are the same split, or if other folders with
    images lie beside those of splits.
  """
  if not root.is_dir():
    raise ValueError(f"data_dir={str(root)!r} is not a folder; give the one that holds the images")
  inside = folders(root)
  group = _split_group(inside)
  if (
    not group
    and len(inside) > 1
    and all(map(split_name, inside))
    and any(class_folders(root / name) for name in inside)
  ):
    raise ValueError(
      f"{root} holds the folders {', '.join(inside[:5])}, which look like splits, but not of one data set; "
      "call them train and test, or rename them if they are classes"
    )
  if not group:
    return {"train": root}
  others = [name for name in inside if name not in group and _holds_image(root / name)]
  if others and len(group) == 1 and not any(class_folders(root / name) for name in group):
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


def class_folders(folder: pathlib.Path) -> list[str]:
  """Lists the folders that hold an image at any depth, sorted by name.

  Raises: ValueError if a folder holds pictures, but none in a known format, or if it holds splits itself.
  """
  found = []
  for name in folders(folder):
    if _holds_image(folder / name):
      found.append(name)
      within = [SPLIT_WORDS.get(inner.casefold()) for inner in folders(folder / name)]
      if len({split for split in within if split} & {"train", "test", "val", "valid", "validation"}) > 1:
        raise ValueError(
          f"{folder / name} would be a class, but it holds the folders of splits; use a folder for each "
          "split that holds the folders of the classes, or give the inner one as data_dir"
        )
      continue
    others = files_below(folder / name, folder).others
    pictures = collections.Counter({kind: n for kind, n in others.items() if kind in OTHER_PICTURES})
    if pictures:
      raise ValueError(
        f"{folder / name} holds no image in a known format, but {counts(pictures)}; convert them to PNG, "
        f"JPEG or WebP, or move the folder away; {known_formats()}"
      )
  return found


def files_below(folder: pathlib.Path, base: pathlib.Path, *, deep: bool = True) -> Files:
  """Lists the files in a folder, and in its subfolders unless `deep` is false."""
  others: collections.Counter = collections.Counter()
  images, start = [], len(os.path.join(folder, ""))
  prefix = os.path.relpath(folder, base)
  for path in _walk(str(folder), deep=deep, hidden=others):
    if is_image(path):
      images.append(path[start:] if prefix == "." else os.path.join(prefix, path[start:]))
    else:
      others[os.path.splitext(path)[1].lower() or "without suffix"] += 1
  return Files(sorted(images), others)


def folders(root: pathlib.Path) -> list[str]:
  """Lists the folders in `root` that are not hidden, sorted."""
  with _scan(str(root)) as entries:
    return sorted(entry.name for entry in entries if _is_folder(entry) and not _hidden(entry, True))


def is_image(path: str) -> bool:
  """Whether the name of a file is that of an image."""
  name = os.path.basename(path)
  return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def listed_classes(folder: pathlib.Path, images: pathlib.Path) -> dict[str, str]:
  """Reads the classes of images without class folders from `folder`/*_annotations.txt: {file name: class}.

  A line holds the name of an image, a tab and its class, as in the validation images of Tiny ImageNet; what
  follows after another tab is ignored. {}: there is no such file.

  Raises: ValueError if there are two such files, a line has no class, or not exactly the images are listed.
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
  present = {os.path.basename(path) for path in files_below(images, images).images}
  for names, problem, where in (
    (present - listed.keys(), "does not list", "which is"),
    (listed.keys() - present, "lists", "which is not"),
  ):
    if names:
      more = f" and {len(names) - 1} more" if len(names) > 1 else ""
      raise ValueError(
        f"{found[0]} {problem} {min(names)}{more}, {where} in {images}; it must list exactly the images there"
      )
  return listed


def known_formats() -> str:
  """The end of a message about files that are not read."""
  return f"known file name extensions: {', '.join(EXTENSIONS)}"


def counts(kinds: collections.Counter) -> str:
  """Writes {".bmp": 12, "hidden": 3} as "12 .bmp, 3 hidden"."""
  return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if count)


def _holds_image(folder: pathlib.Path) -> bool:
  with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the quick answer of most folders
    if any(is_image(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries):
      return True
  return any(is_image(path) for path in _walk(str(folder)))


def _walk(folder: str, *, deep: bool = True, hidden: collections.Counter | None = None) -> Iterator[str]:
  """Yields the path of every file below a folder that is not hidden.

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
      elif deep and (real := os.path.realpath(entry.path)) not in entered:
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
