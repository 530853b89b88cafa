"""The figures of test-time training under corruption: with and without adaptation, with standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_jax.tasks.adapted_splits import AdaptedRows
from ssl_jax.tasks.corrupted import CLEAN, CorruptedSplit

Table = dict[tuple[str, int], np.ndarray]  # one value per image, by (corruption, severity)


def report(
  rows: AdaptedRows, splits: list[CorruptedSplit], trained: list[np.ndarray]
) -> tuple[dict[str, float], dict[str, Any]]:
  """Returns (the scalars, the figures of every split for the protocol).

  Means over splits leave out the clean split, unless it is the only one.

  Args:
    trained: for each split, the classes predicted without adaptation, i64[N].
  """
  found = {split[:2]: rows.of(split) for split in splits}
  wrong = {name: r["logits"].argmax(-1) != r["label"] for name, r in found.items()}
  before = {name: guess != r["label"] for guess, (name, r) in zip(trained, found.items())}
  harmed = [name for name in found if name[0] != CLEAN] or list(found)
  mean, plain = (np.mean([table[name] for name in harmed], 0) for table in (wrong, before))
  scalars = {
    "error": float(mean.mean()),
    "error_without": float(plain.mean()),
    "gain": float((plain - mean).mean()),
    "diverged": float(np.mean([found[name]["diverged"] for name in harmed])),
    "adapted": float(np.mean([found[name]["adapted"] for name in harmed])),
  }
  for corruption in dict.fromkeys(name[0] for name in found):
    of_it = [values.mean() for name, values in wrong.items() if name[0] == corruption]
    scalars[corruption] = float(np.mean(of_it))
  curves = {name: r["curve"].argmax(-1) != r["label"][:, None] for name, r in found.items()}
  means = lambda values: np.mean(values, 0).tolist()
  return scalars, {
    "error": _by_name(wrong, np.mean),
    "error_without": _by_name(before, np.mean),
    "standard_error": _by_name(wrong, _standard_error),
    "gain_standard_error": _by_name(
      {name: before[name].astype(float) - wrong[name] for name in wrong}, _standard_error
    ),
    "mean": {"standard_error": _standard_error(mean), "gain_standard_error": _standard_error(plain - mean)},
    "diverged": _by_name({name: r["diverged"] for name, r in found.items()}, np.sum),
    "curve": _by_name(curves, means),
    "losses": _by_name({name: r["losses"] for name, r in found.items()}, means),
    "test_rows": len(mean),
  }


def _by_name(table: Table, reduce) -> dict[str, dict[str, Any]]:
  """Returns {corruption: {severity: reduced values}}."""
  found = {}
  for (name, severity), values in table.items():
    value = reduce(values)
    found.setdefault(name, {})[str(severity)] = value if isinstance(value, list) else float(value)
  return found


def _standard_error(values: np.ndarray) -> float:
  """Returns the standard error of the mean of the values, one value per image."""
  return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
