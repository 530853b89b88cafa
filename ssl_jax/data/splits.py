"""Implements the split syntax of TFDS for sources that TFDS does not read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_jax.config.checked import nearest

BY_CLASS = "each class in proportion, in the order of its paths"  # descriptions of the orders of `choose`
SHUFFLED = "from a fixed shuffled order"
HELD_OUT = ("test", "val", "valid", "validation", "eval", "evaluation", "dev", "holdout")
TRAIN_PART, TEST_PART = "train[:90%]", "train[90%:]"  # of a folder that has no test split
_PART = re.compile(
  # The name of a split may have a folder: "2007/train".
  r"\s*(?P<split>[\w.-]+(/[\w.-]+)?)(\[\s*(?P<start>-?[\d_]+%?)?\s*:\s*(?P<stop>-?[\d_]+%?)?\s*\])?\s*"
)


def names(spec: str) -> list[str]:
  """Lists the splits that `spec` names: "train[:9%]+test" -> ["train", "test"].

  Raises: ValueError if `spec` does not follow the syntax.
  """
  return [part["split"] for part in _parts(spec)]


def check_names(spec: str, known: Mapping[str, int] | list[str], where: str) -> None:
  """Raises ValueError if `spec` names an unknown split, with the known ones and `where` they are."""
  for name in names(spec):
    if name not in known:
      raise ValueError(
        f"split={spec!r}: {where} has no split {name!r}{nearest(name, known)}. A part of a split "
        "is allowed too, such as 'train[90%:]'"
      )


def stand_in(spec: str, known: Sequence[str]) -> tuple[str, str]:
  """Chooses what stands for a split that a data set does not have: (split, what to tell the user or "").

  For "test", "val" and the like stands another one of HELD_OUT that is there. If none is there, a fixed tenth
  of "train" is held back: "train" is then "train[:90%]", and "test" is "train[90%:]". "train[:100%]" is all
  of it.
  """
  found = _PART.fullmatch(spec)
  held = [name for name in HELD_OUT if name in known]
  if not found or "train" not in known or (found["split"] in known and (held or spec.strip() != "train")):
    return spec, ""
  name = found["split"]
  if held and name in HELD_OUT:
    return spec.replace(name, held[0], 1), f"it has no split {name!r}: {held[0]!r} is used"
  if held or spec.strip() not in ("train", *HELD_OUT):
    return spec, ""
  if name == "train":
    kept = f"a tenth of each class, {TEST_PART}, is held back for tests"
    return TRAIN_PART, f"it has no test split: {kept}; the split 'train[:100%]' is all of it"
  return TEST_PART, f"it has no such split: {TEST_PART} is used, which training holds back"


def resolve(spec: str, sizes: Mapping[str, int]) -> list[tuple[str, range]]:
  """Resolves `spec` to (split, indices in that split), in order.

  Args:
    spec: "train", "train[:90%]", "train[100:200]", "train[-1000:]" or several of these joined by "+". A
      percentage is rounded to the nearest image, as TFDS does.
    sizes: number of images in each split.
  Raises: ValueError for wrong syntax, an unknown split, a bound outside the split, or an empty selection.
  """
  check_names(spec, sizes, "this source")
  return [(part["split"], _slice(part, sizes[part["split"]], spec)) for part in _parts(spec)]


def choose(spec: str, labels: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
  """Resolves `spec` to (split, indices in that split, ascending) for records that may be sorted by class.

  A part of a split holds each class in proportion: it is cut from an order in which all classes advance
  equally fast, and each of them in the order of its records. Records without labels are cut from a fixed
  shuffled order. Either way "train[:80%]" and "train[80%:]" are disjoint, together they are the whole split,
  and the number of records is that of `resolve`.

  Args:
    labels: the class of each record of each split, i32[N]; -1: none.
  Raises: as `resolve`.
  """
  parts = resolve(spec, {name: len(of_split) for name, of_split in labels.items()})
  orders = {name: _spread(labels[name]) for name in {name for name, _ in parts}}
  return [(name, np.sort(orders[name][places])) for name, places in parts]


def _spread(labels: np.ndarray) -> np.ndarray:
  """Returns indices i64[N] of the records in an order of which any part holds the classes in proportion."""
  if not (labels >= 0).any():
    return np.random.default_rng(0).permutation(len(labels))
  by_class = np.argsort(labels, kind="stable")
  _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
  rank = np.arange(len(labels)) - np.repeat(starts, counts)
  progress = (rank + 0.5) / np.repeat(counts, counts)
  return by_class[np.argsort(progress, kind="stable")]


def _parts(spec: str) -> list[re.Match]:
  parts = [_PART.fullmatch(part) for part in spec.split("+")]
  if not all(parts):
    raise ValueError(
      f"split={spec!r} is not a split; use 'train', 'train[:90%]', 'train[100:200]' or join several with '+'"
    )
  return [part for part in parts if part]


def _slice(part: re.Match, size: int, spec: str) -> range:
  start = _bound(part["start"] or "0", size, spec)
  stop = _bound(part["stop"] or str(size), size, spec)
  if start >= stop:
    raise ValueError(
      f"split={spec!r} selects nothing: {start}:{stop} holds none of the {size} images of {part['split']!r}"
    )
  return range(start, stop)


def _bound(text: str, size: int, spec: str) -> int:
  value = int(text.rstrip("%"))
  place = round(value * size / 100) if text.endswith("%") else value
  if abs(place) > size:
    raise ValueError(
      f"split={spec!r} reaches to {text}, but the split has {size} images; use a smaller bound"
    )
  return place + size if text.startswith("-") else place
