"""Names of classes for pictures and the report."""

from __future__ import annotations

from collections.abc import Sequence


def name_classes(class_names: Sequence[str], count: int) -> list[str]:
  """The names of the classes 0 to `count - 1`; a class without a name is called by its number."""
  return [str(class_names[i]) if i < len(class_names) else str(i) for i in range(count)]


def short_names(class_names: Sequence[str], count: int, length: int = 20) -> list[str]:
  """As `name_classes`, with long names cut to `length` characters."""
  names = name_classes(class_names, count)
  return [name if len(name) <= length else name[: length - 1] + "…" for name in names]
