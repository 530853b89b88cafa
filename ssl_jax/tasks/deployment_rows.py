"""The episodes of a deployment that have been played, which survive an interruption."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_jax.tasks.deployment_episodes import FROZEN, Cell, Played
from ssl_jax.tasks.partial_results import PartialResults

_FIELDS = Played._fields


class EpisodeRows:
  """What happened in each episode, by cell."""

  def __init__(self, partial_results: PartialResults, identity: dict):
    """Begins with what was saved for the same measurement."""
    self._partial, self._identity = partial_results, identity
    self._rows: dict[Cell, Played] = {}
    stored = partial_results.load(identity)
    names = sorted({name.rpartition("/")[0] for name in stored})
    for name in names:
      world, arm, number = name.split("/")
      values = {field: stored[f"{name}/{field}"] for field in _FIELDS}
      plain: dict[str, Any] = {f: value.item() if value.ndim == 0 else value for f, value in values.items()}
      self._rows[Cell(world, arm, int(number))] = Played(**plain)

  def __len__(self) -> int:
    return len(self._rows)

  def __contains__(self, cell: Cell) -> bool:
    return cell in self._rows

  def add(self, cell: Cell, played: Played) -> None:
    """Adds an episode."""
    self._rows[cell] = played

  def save(self) -> None:
    """Saves all episodes."""
    arrays = {
      f"{'/'.join(map(str, cell))}/{field}": np.asarray(value)
      for cell, played in self._rows.items()
      for field, value in played._asdict().items()
    }
    self._partial.save(self._identity, arrays)

  def of(self, world: str, arm: str) -> list[Played]:
    """The episodes of a world and an arm, by their number."""
    return [self._rows[cell] for cell in sorted(self._rows) if cell[:2] == (world, arm)]

  def milliseconds(self) -> dict[str, float]:
    """The mean time of an action by arm, learning included, the environment not."""
    found = {}
    for cell, played in self._rows.items():
      found.setdefault(cell.arm, []).append(1000 * played.seconds)
    return {arm: round(float(np.mean(times)), 3) for arm, times in sorted(found.items(), key=_frozen_first)}


def _frozen_first(item: tuple[str, list[float]]) -> tuple[bool, str]:
  return item[0] != FROZEN, item[0]
