"""Elements: the named arrays of fixed shape and dtype that a host transform makes of a record.

The pipeline, the cache, the shared buffers and the compiled step derive their shapes from this declaration.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Record = Mapping[str, Any]  # as a source stores it: encoded files as bytes, arrays, numbers
# Elements that the pipeline adds to evaluation batches: "valid" bool[B], False for rows that do not count;
# "index" i32[B], the indices of the records in the source.
RESERVED = ("valid", "index")


class ShapeDtype(NamedTuple):
  """The shape of one example's array, without the batch axis, and its dtype."""

  shape: tuple[int, ...]
  dtype: Any  # anything that numpy accepts as a dtype

  @property
  def size_in_bytes(self) -> int:
    """The size of one example's array in bytes."""
    return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


Elements = Mapping[str, ShapeDtype]


class Transform(Protocol):
  """A host transform: turns a record into arrays. It must be picklable, because worker processes get a copy.

  `elements` declares the name, shape and dtype of every array that a call returns; a call returns exactly
  these. By convention, arrays with padded rows come with a mask: a row of "boxes" is padding where
  "boxes_valid" is False.
  """

  @property
  def random(self) -> bool: ...  # whether a call draws from `rng`; if it does not, `rng` may be None

  @property
  def elements(self) -> Elements: ...

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    """Returns the arrays of one example. Raises DecodeError if the record cannot be decoded."""
    ...


def check_elements(elements: Elements) -> Elements:
  """Returns `elements`. Raises ValueError if one of them has a name in RESERVED."""
  for name in elements:
    if name in RESERVED:
      raise ValueError(
        f"a host transform makes an element called {name!r}, a name that is reserved for evaluation batches; "
        "rename it"
      )
  return elements


def clip_number(record: Record) -> np.ndarray:
  """i32[]: 31 bits of a checksum of the record's "clip_name", by which clips are told apart."""
  return np.array(zlib.crc32(record["clip_name"].encode()) >> 1, np.int32)


def empty_batch(elements: Elements, count: int) -> dict[str, np.ndarray]:
  """Allocates uninitialised arrays [count, ...] for `count` examples."""
  return {name: np.empty((count, *spec.shape), spec.dtype) for name, spec in elements.items()}


def host_batch(
  transform: Transform, records: Sequence[Record], rngs: Sequence[np.random.Generator] | None = None
) -> dict[str, np.ndarray]:
  """The batch that the host makes of records: every element of the transform, with a leading batch axis.

  Args:
    rngs: one for each record; None for a transform that draws nothing.
  """
  made = [transform(rng, record) for rng, record in zip(rngs or [None] * len(records), records, strict=True)]
  return {
    name: np.stack([np.asarray(example[name], spec.dtype) for example in made])
    for name, spec in transform.elements.items()
  }
