"""Classes are compared by their names, because the same number means another class in another data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Reader, Source

_SHOWN = 5  # names in a message


def numbers_of(names: Sequence[str], known: Sequence[str], *, what: str, owner: str) -> np.ndarray:
  """Returns the number of each name among `known`, i32[len(names)].

  Args:
    what: the images that have the classes `names`, for the message.
    owner: what distinguishes the classes `known`, for the message.
  Raises: ValueError that lists the names that are not in `known`.
  """
  number = {name: i for i, name in enumerate(known)}
  unknown = [name for name in names if name not in number]
  if unknown:
    raise ValueError(
      f"{what} have classes other than those of {owner}: {listed(unknown)}; it has {listed(known)}. Use data "
      "with the same class names, or with some of them; rename or remove the other folders"
    )
  return np.array([number[name] for name in names], np.int32)


def listed(names: Sequence[str]) -> str:
  """Returns the first names, and the number of the others."""
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(map(str, names[:_SHOWN])) + more


def renumbered(source: Source, class_names: Sequence[str], *, what: str, owner: str) -> Source:
  """Returns a source whose labels are numbers among `class_names`, found by name.

  Raises: ValueError if the source has a class that is not in `class_names`.
  """
  numbers = numbers_of(source.class_names, class_names, what=what, owner=owner)
  names = tuple(class_names)
  return dataclasses.replace(
    source, reader=Renumbered(source.reader, numbers), num_classes=len(names), class_names=names
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Renumbered:
  """A Reader that replaces the labels of another one."""

  origin: Reader
  numbers: np.ndarray  # i32[C]: by the label of the other reader

  def __len__(self) -> int:
    return len(self.origin)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{**record, "label": int(self.numbers[record["label"]])} for record in self.origin.read(indices)]

  def name(self, index: int) -> str:
    return self.origin.name(index)


def changed(before: Sequence[str], after: Sequence[str]) -> str:
  """Returns a line that says how the class names differ, or "" if they are the same or unknown."""
  if not before or not after or list(before) == list(after):
    return ""
  gone = [name for name in before if name not in set(after)]
  new = [name for name in after if name not in set(before)]
  if not gone and not new:
    return "data.class_names: the same names in another order"
  parts = [f"{what} {listed(names)}" for what, names in (("without", gone), ("with", new)) if names]
  return f"data.class_names: the data is now {' and '.join(parts)}"
