"""Decodes segmentation masks: what is stored in a file becomes the number of a class for every pixel.

A record with a "mask" may carry "mask_values", which says how its data set numbers classes. It has one of two
forms: a table i16[256] from the stored value to the class, or, for masks whose classes are colours, rows
i16[n, 4] of (red, green, blue, class). The class is IGNORE where a pixel has none, and UNDEFINED for values
that the data set does not define. Without "mask_values" the stored values are the classes.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_jax.data import decode
from ssl_jax.data.elements import Record

IGNORE = 255  # the mask value of pixels without a class
UNDEFINED = -1  # in a table: a stored value that the data set does not define
IGNORED_NAMES = frozenset("void ignore ignored unlabelled unlabeled".split())  # of values without a class
FIELD = "mask_values"
_COLOUR = re.compile(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(.*\S)")
_SHOWN = 5  # undefined values in a message


class MaskClasses(NamedTuple):
  """The classes of the masks of a data set."""

  values: np.ndarray | None  # as in a record; None: the stored values are the classes
  names: tuple[str, ...]  # by class; () if they are unknown


UNKNOWN = MaskClasses(None, ())


def decode_classes(record: Record) -> np.ndarray:
  """Decodes the mask of a record into the class of each pixel.

  Args:
    record: "mask" is an encoded file (see `decode.decode_mask`; a colour image if the classes are colours) or
      an array uint8[H, W], or uint8[H, W, 3] of colours; "mask_values" is optional.
  Returns: uint8[H, W]; IGNORE where a pixel has no class.
  Raises: DecodeError if the mask cannot be decoded, or has a value that the data set does not define.
  """
  stored, values = record["mask"], record.get(FIELD)
  if values is None:
    return decode.decode_mask(stored)
  if values.ndim == 2:
    colours = decode.decode(stored) if isinstance(stored, bytes) else stored
    return _of_colours(colours, values)
  mask = decode.decode_mask(stored)
  found = values[mask]
  wrong = found == UNDEFINED
  if wrong.any():
    raise _undefined("values", *np.unique(mask[wrong], return_counts=True))
  return found.astype(np.uint8)


def decode_pair(record: Record) -> tuple[decode.Opened, np.ndarray]:
  """Opens the image of a record and decodes its mask; returns (opened image, uint8[H, W]).

  Raises: DecodeError as `decode_classes`, or if the sizes of image and mask differ.
  """
  opened, mask = decode.open_image(record["image"]), decode_classes(record)
  check_size(mask, opened.size)
  return opened, mask


def check_size(mask: np.ndarray, size: tuple[int, int]) -> None:
  """Raises DecodeError unless the mask [H, W] is of the same `size` (width, height) as its image."""
  if mask.shape != size[::-1]:
    raise decode.DecodeError(
      f"the mask has {mask.shape[1]}x{mask.shape[0]} pixels, the image {size[0]}x{size[1]}"
    )


def value_table(classes: Mapping[int, int]) -> np.ndarray:
  """Returns the table i16[256] of {stored value: class}; IGNORE is always ignored, all others are undefined.

  Raises: ValueError for a value that a mask cannot store.
  """
  table = np.full(256, UNDEFINED, np.int16)
  for value, number in classes.items():
    if not 0 <= value <= 255:
      raise ValueError(f"a class has the mask value {value}; a mask stores values from 0 to 255")
    table[value] = number
  table[IGNORE] = IGNORE
  return table


def named_values(names: Mapping[int, str]) -> MaskClasses:
  """Numbers classes from 0 in the order of their stored values, {value: name}.

  Values whose name is in IGNORED_NAMES, and IGNORE itself, are no classes: their pixels are ignored.

  Raises: ValueError as `value_table`, or if two values have the same name.
  """
  numbers = _numbers([names[value] for value in sorted(names) if value != IGNORE])
  table = value_table({value: numbers.get(name, IGNORE) for value, name in names.items()})
  return MaskClasses(table, tuple(numbers))


def read_class_file(path: pathlib.Path) -> MaskClasses:
  """Reads a file with one class in each line, in the order of the mask values, which begin at 0.

  If every line is of the form "RED GREEN BLUE NAME", separated by blanks or tabs, the classes are colours and
  are numbered in the order of the lines. Values or colours with a name in IGNORED_NAMES are ignored. Empty
  lines do not count.

  Raises: ValueError if only some lines have a colour, or a name or a colour occurs twice; it names the file.
  """
  text = path.read_text(encoding="utf-8")
  lines = [line.strip() for line in text.split("\n") if line.strip()]
  colours = [_COLOUR.fullmatch(line) for line in lines]
  try:
    if any(colours):
      return _named_colours(lines, colours)
    return named_values(dict(enumerate(lines)))
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _named_colours(lines: Sequence[str], matches: Sequence[re.Match | None]) -> MaskClasses:
  rows: dict[tuple[int, ...], str] = {}
  for number, (line, match) in enumerate(zip(lines, matches, strict=True), 1):
    if match is None:
      raise ValueError(f"class {number}, {line!r}, has no colour, but others have; write RED GREEN BLUE NAME")
    colour = tuple(map(int, match.groups()[:3]))
    if max(colour) > 255 or colour in rows:
      raise ValueError(
        f"class {number}, {line!r}: the colour {'is out of range' if max(colour) > 255 else 'occurs twice'}; "
        "use three numbers from 0 to 255, different for each class"
      )
    rows[colour] = match[4]
  numbers = _numbers(list(rows.values()))
  values = [(*colour, numbers.get(name, IGNORE)) for colour, name in rows.items()]
  return MaskClasses(np.array(values, np.int16), tuple(numbers))


def _numbers(names: Sequence[str]) -> dict[str, int]:
  """Numbers the names that are not in IGNORED_NAMES."""
  kept = [name for name in names if name.casefold() not in IGNORED_NAMES]
  twice = sorted({name for name in kept if kept.count(name) > 1})
  if twice:
    raise ValueError(f"the class {twice[0]!r} occurs twice; use different names")
  if len(kept) > IGNORE:
    raise ValueError(f"there are {len(kept)} classes; masks distinguish at most {IGNORE}")
  return {name: number for number, name in enumerate(kept)}


def _of_colours(image: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Returns the class uint8[H, W] of each colour of uint8[H, W, 3]."""
  known = _codes(rows[:, :3])
  order = np.argsort(known)
  codes = _codes(image)
  place = np.minimum(np.searchsorted(known[order], codes), len(order) - 1)
  wrong = known[order][place] != codes
  if wrong.any():
    found, counts = np.unique(codes[wrong], return_counts=True)
    raise _undefined("colours", [tuple(code.tobytes()[:3][::-1]) for code in found.astype("<i4")], counts)
  return rows[order, 3].astype(np.uint8)[place]


def _codes(colours: np.ndarray) -> np.ndarray:
  """Returns a number i32[...] for each colour [..., 3]."""
  red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
  return red << 16 | green << 8 | blue


def _undefined(what: str, found: Sequence | np.ndarray, counts: np.ndarray) -> decode.DecodeError:
  listed = [f"{value} ({count} pixels)" for value, count in zip(found, counts, strict=True)]
  more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
  return decode.DecodeError(
    f"the mask has {what} that the data set does not define: {', '.join(listed[:_SHOWN])}{more}"
  )
