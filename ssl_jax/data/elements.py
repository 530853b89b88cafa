"""What a record becomes on the host: named arrays of fixed shapes. The one declaration that everything behind
it derives its shapes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Record = Mapping[str, Any]  # as a source stores it: encoded files as bytes, arrays, numbers
RESERVED = (
  "valid",
  "index",
  # what the pipeline itself adds to an evaluation batch: bool[B] rows that count, i32[B] places in the source
)


class ShapeDtype(NamedTuple):
  """The shape of one example's array, without the batch axis, and its dtype."""

  shape: tuple[int, ...]
  dtype: Any  # a numpy dtype, or what numpy takes for one

  @property
  def size_in_bytes(self) -> int:
    """Bytes of one example's array."""
    return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


Elements = Mapping[str, ShapeDtype]


class Transform(Protocol):
  """What the host makes of a record. It must survive pickling: worker processes get a copy.

  `elements` declares every array that a call returns, by name: no others, in exactly these shapes and dtypes.
    Arrays whose rows are padded come
  with a mask by convention: rows of "boxes" count where "boxes_valid" is True.
  """

  random: bool  # whether a call draws from `rng`; if not, `rng` may be None

  @property
  def elements(self) -> Elements: ...

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    """The arrays of one example. Raises DecodeError if the record cannot be decoded."""
    ...


def check_elements(elements: Elements) -> Elements:
  """Returns `elements`. Raises ValueError for a name that the pipeline needs for itself."""
  for name in elements:
    if name in RESERVED:
      raise ValueError(
        f"a host transform makes an element called {name!r}, a name that evaluation batches need for themselves; rename it"
      )
  return elements


def empty_batch(elements: Elements, count: int) -> dict[str, np.ndarray]:
  """Uninitialised arrays for `count` examples."""
  return {name: np.empty((count, *spec.shape), spec.dtype) for name, spec in elements.items()}
