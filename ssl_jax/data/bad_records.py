"""Records that cannot be decoded: how many are allowed, how they are told, and what replaces them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from ssl_jax.data.reader import Source

_LOG = logging.getLogger(__name__)
_LISTED = 50  # most bad files that an error message lists


def allowed(source: Source, fraction: float) -> int:
  """The number of records that may be bad."""
  if not 0 <= fraction <= 1:
    raise ValueError(f"max_bad_fraction={fraction}; use a fraction from 0 to 1")
  return int(fraction * len(source) + 1e-9)


def warn(name: str, reason: str) -> None:
  """Logs a warning that a record is left out."""
  _LOG.warning("%s cannot be decoded and is left out: %s", name, reason)


def too_many(bad: Mapping[str, str], most: int, source: Source) -> ValueError:
  """Returns the error that lists the records that could not be decoded, {name: reason}."""
  lines = [f"{name}: {reason}" for name, reason in bad.items()]
  if len(lines) > _LISTED:
    lines[_LISTED:] = [f"and {len(lines) - _LISTED} more"]
  return ValueError(
    f"{len(bad)} of {len(source)} {source.records} cannot be decoded, {most} are allowed; repair or "
    "remove them, or raise config.data.max_bad_fraction:\n  " + "\n  ".join(lines)
  )


def replaced(source: Source, bad: Mapping[int, str], max_bad_fraction: float) -> np.ndarray:
  """i64[N]: each record itself or, as `pipeline.train_batches` replaces it, the first good one after it.

  Args:
    bad: the reasons, by record.
  Raises: ValueError if more records are bad than `max_bad_fraction` allows.
  """
  most = allowed(source, max_bad_fraction)
  named = {source.name(number): reason for number, reason in bad.items()}
  for name, reason in named.items():
    warn(name, reason)
  if len(named) > most:
    raise too_many(named, most, source)
  good = np.arange(len(source))
  for number in bad:
    while good[number] in bad:
      good[number] = (good[number] + 1) % len(source)
  return good
