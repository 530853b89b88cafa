"""Implements the split syntax of TFDS for sources that TFDS does not read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ssl_jax.config.checked import nearest

_PART = re.compile(r"\s*(?P<split>[\w.-]+)(\[\s*(?P<start>-?[\d_]+%?)?\s*:\s*(?P<stop>-?[\d_]+%?)?\s*\])?\s*")


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
