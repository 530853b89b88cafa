"""Sources and readers: how the pipeline gets records by index."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Record


def cores() -> int:
  """Returns the number of processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Reader(Protocol):
  """Reads the records of a source. It must be picklable, because worker processes get a copy."""

  def __len__(self) -> int: ...

  def read(self, indices: Sequence[int]) -> list[Record]: ...  # in the order of `indices`

  def name(self, index: int) -> str: ...  # a file path or record id, for messages


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """A split of a data set: `len(source)`, `source[i] -> record`, `source.name(i)`.

  Every record has "label", a class index or -1, and "image", an encoded file (bytes) or pixels uint8[H, W,
  3], or instead of it "clip", the path of a clip, or "frames", encoded frames of a clip in order, with its
  name as "clip_name". Further `fields` may be: "mask", an encoded file or classes uint8[H, W], which a record
  may accompany with "mask_values" (see mask_values.py; `decode_classes` there reads both); "segments" (see
  segments.py); "boxes" f32[n, 4]
  (x1, y1, x2, y2) in pixels of the upright image, with "boxes_class" i32[n], "boxes_crowd" bool[n],
  "boxes_difficult" bool[n], "boxes_area" f64[n] and perhaps "instances", n encoded
  masks, and "dense_points", n annotations of DensePose; see objects.py.
  """

  reader: Reader = dataclasses.field(repr=False)
  num_classes: int  # 0: no labels
  class_names: tuple[str, ...] = dataclasses.field(repr=False)
  native_shape: tuple[int, int, int] | None  # shape of every decoded image; None: the shapes differ
  fields: tuple[str, ...] = ("image", "label")  # the fields of a record
  # for fields with rows, such as "boxes": the largest number of rows in a record
  most_rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
  order: str = "as stored"  # how a part of a split, such as "train[:10%]", is cut; for protocols
  sorted_by_class: bool = False
  # the classes of the masks, without the ignored one, if they are not `class_names`: () if they are unknown
  mask_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
  records: str = "images"  # what the records are, for messages
  note: str = ""  # what the user should know about the split, for headlines
  left_out: str = ""  # what is not read of the data set, such as "12 .bmp, 3 hidden"; for headlines
  # of each record, if all of them have "clip_name", to find the frames of a clip without reading any
  clip_names: tuple[str, ...] = dataclasses.field(default=(), repr=False)
  fingerprint: str = ""  # digest of some of the records; "": unknown
  things: tuple[str, ...] = dataclasses.field(default=(), repr=False)  # classes whose "segments" are objects

  def __len__(self) -> int:
    return len(self.reader)

  @property
  def mask_classes(self) -> tuple[str, ...]:
    """The names of the classes of the masks, without the ignored one; () if they are unknown."""
    return self.class_names if self.mask_names is None else self.mask_names

  def sorted_size(self) -> int:
    """The number of records if they are sorted by class, and otherwise 0."""
    return len(self) if self.sorted_by_class else 0

  def summary(self) -> str:
    """The size of the source and what was left out: "30 images of 3 classes; not read: 2 .bmp"."""
    classes = f" of {self.num_classes} classes" if self.num_classes else ""
    told = [f"; not read: {self.left_out}"] if self.left_out else []
    told += [f"; {self.note}"] if self.note else []
    return f"{len(self)} {self.records}{classes}" + "".join(told)

  def __getitem__(self, index: int) -> Record:
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[Record]:
    """Reads several records in one call, in this order. Raises IndexError if an index is out of range."""
    wrong = [i for i in indices if not 0 <= i < len(self)]
    if wrong:
      raise IndexError(f"there is no record {wrong[0]}; the source has {len(self)} records")
    return self.reader.read(indices)

  def name(self, index: int) -> str:
    """The file path or record id of record `index`, for messages."""
    return self.reader.name(index)

  def read_each(self, indices: Sequence[int]) -> Sequence[Record | DecodeError]:
    """As `__getitems__`, but with a DecodeError in the place of each record that cannot be read."""
    try:
      return self.__getitems__(indices)
    except (IndexError, MemoryError):
      raise
    except Exception:  # read one by one, to find out which of them fails
      return [self._read_one(i) for i in indices]

  def _read_one(self, index: int) -> Record | DecodeError:
    try:
      return self[index]
    except MemoryError:
      raise
    except Exception as error:  # a missing file, a damaged record: each storage raises its own kinds
      return DecodeError(str(error) or type(error).__name__)
