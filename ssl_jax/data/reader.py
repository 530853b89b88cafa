"""What the pipeline reads from: records by number."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Record


def cores() -> int:
  """Processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Reader(Protocol):
  """How a source gets at its records. It must survive pickling: worker processes get a copy."""

  def __len__(self) -> int: ...

  def read(self, indices: Sequence[int]) -> list[Record]: ...  # several in one call, in the order asked

  def name(self, index: int) -> str: ...  # file path or record id, for messages


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """A split of a data set: `len(source)`, `source[i] -> record`, `source.name(i)`.

  Every record has "image", an encoded file (bytes) or pixels uint8[H, W, 3], and "label", the number of a
  class or -1. Others of `fields`: "mask", an encoded file or classes uint8[H, W]; "boxes" f32[n, 4] (x1, y1,
  x2, y2) in pixels of the upright image, with "boxes_class" i32[n] and "boxes_crowd" bool[n].
  """

  reader: Reader = dataclasses.field(repr=False)
  num_classes: int  # 0: no labels
  class_names: tuple[str, ...] = dataclasses.field(repr=False)
  native_shape: tuple[int, int, int] | None  # of every decoded image; None: they differ
  fields: tuple[str, ...] = ("image", "label")  # what a record holds
  # of fields with rows: the most in one record
  most_rows: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.reader)

  def __getitem__(self, index: int) -> Record:
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[Record]:
    """Several records in one call, in the order asked; an index out of range is an IndexError."""
    wrong = [i for i in indices if not 0 <= i < len(self)]
    if wrong:
      raise IndexError(f"record {wrong[0]} of {len(self)}")
    return self.reader.read(indices)

  def name(self, index: int) -> str:
    """The file or record that record `index` comes from, for messages."""
    return self.reader.name(index)

  def read_each(self, indices: Sequence[int]) -> list[Record | DecodeError]:
    """As `__getitems__`, with a DecodeError in the place of each record that cannot be read."""
    try:
      return self.__getitems__(indices)
    except (IndexError, MemoryError):
      raise
    except Exception:  # one of them fails: find out which
      return [self._read_one(i) for i in indices]

  def _read_one(self, index: int) -> Record | DecodeError:
    try:
      return self[index]
    except MemoryError:
      raise
    except Exception as error:  # a vanished file, a damaged record: each storage has its own kinds
      return DecodeError(str(error) or type(error).__name__)
