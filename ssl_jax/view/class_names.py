"""Names of classes for pictures and the report."""

from __future__ import annotations

from collections.abc import Sequence


def name_classes(class_names: Sequence[str], count: int) -> list[str]:
  """Returns the names of the classes 0 to `count - 1`, which can be encoded in UTF-8.

  A class without a name is called by its number. Bytes of a name that are not UTF-8 become "\ufffd".
  """
  given = [str(name) for name in class_names[:count]]
  clean = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in given]
  return clean + [str(i) for i in range(len(clean), count)]


def short_names(class_names: Sequence[str], count: int, length: int = 20) -> list[str]:
  """As `name_classes`, for matplotlib: cut to `length` characters, and "$" does not start mathematics."""
  names = name_classes(class_names, count)
  cut = (name if len(name) <= length else name[: length - 1] + "…" for name in names)
  return [name.replace("$", r"\$") for name in cut]
