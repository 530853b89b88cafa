"""The figures of a deployment: by world and arm, and paired differences to the frozen arm."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssl_jax.control.environment import LENGTH
from ssl_jax.tasks.deployment_episodes import ADAPTED, FROZEN, Played
from ssl_jax.tasks.deployment_rows import EpisodeRows
from ssl_jax.tasks.frame_accuracy import bootstrap
from ssl_jax.view import deployment as pictures


def report(
  rows: EpisodeRows, worlds: tuple[str, ...], arms: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, Any]]:
  """Returns (the scalars, the figures for the protocol).

  A score is a return divided by the greatest possible one. Means over worlds leave out "train", unless it is
  the only one. Intervals are of 95%, by a bootstrap over episodes; differences are paired by episode.
  """
  values = {(world, arm): _values(rows.of(world, arm)) for world in worlds for arm in arms}
  cells, differences = {}, {}
  for (world, arm), found in values.items():
    cells.setdefault(world, {})[arm] = {name: list(bootstrap(of_it)) for name, of_it in found.items()}
    if arm != FROZEN:
      plain = values[world, FROZEN]
      pairs = {name: found[name] - plain[name] for name in ("return", "error") if name in found}
      if "error" in found:
        pairs["error_in_the_same_states"] = found["error"] - found["error_of_trained"]
      named = {name: list(bootstrap(of_it)) for name, of_it in pairs.items()}
      differences.setdefault(world, {})[arm] = named
  shifted = [world for world in worlds if world != "train"] or list(worlds)
  mean = lambda arm, name: float(np.mean([values[world, arm][name].mean() for world in shifted]))
  main = ADAPTED if ADAPTED in arms else arms[0]
  scalars = {"score": mean(main, "return") / LENGTH}
  scalars |= {f"score_{arm}": mean(arm, "return") / LENGTH for arm in arms}
  if "error" in values[worlds[0], FROZEN]:
    scalars |= {f"error_{arm}": mean(arm, "error") for arm in arms}
  scalars["diverged"] = float(
    np.mean([p.diverged for world in worlds for arm in arms for p in rows.of(world, arm)])
  )
  for (world, arm), found in values.items():
    scalars[f"score_{world}_{arm}"] = float(found["return"].mean()) / LENGTH
  return scalars, {"cells": cells, "differences": differences, "greatest_return": LENGTH}


def _values(episodes: list[Played]) -> dict[str, np.ndarray]:
  """By measure, f64[episodes]; without an expert there are no errors."""
  found = {"return": np.array([played.reward for played in episodes], np.float64)}
  if all(np.isfinite(played.expert).all() for played in episodes):
    found["error"] = np.array([_error(played.actions, played.expert) for played in episodes])
    found["error_of_trained"] = np.array([_error(played.trained, played.expert) for played in episodes])
  if all(len(played.losses) for played in episodes):
    found["task_loss"] = np.array([played.losses.mean() for played in episodes], np.float64)
  return found


def _error(actions: np.ndarray, expert: np.ndarray) -> float:
  return float(((actions - expert) ** 2).mean())


def plot(
  rows: EpisodeRows,
  details: dict[str, Any],
  worlds: tuple[str, ...],
  arms: tuple[str, ...],
  path: pathlib.Path,
  title: str,
) -> None:
  """Writes `path`.png, returns and errors; `path`.gif, the first episode of each world with each arm side by
  side; and `path`-strip.png, frames of it.
  """
  films = {world: {arm: rows.of(world, arm)[0].film for arm in arms} for world in worlds}
  pictures.plot_cells(f"{path}.png", details["cells"], title=title)
  pictures.write_film(path, films)
