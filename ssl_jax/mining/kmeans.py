"""Clusters vectors by k-means, in numpy: the same seed gives the same clusters."""

from __future__ import annotations

import numpy as np

_ROWS = 8192  # whose distances are computed at once


def kmeans(
  vectors: np.ndarray, count: int, *, seed: int, restarts: int = 10, iterations: int = 50
) -> tuple[np.ndarray, float]:
  """Lloyd's algorithm from starts by k-means++; the best of several restarts.

  A cluster that loses all its vectors moves to the vector that is farthest from its own centre.

  Args:
    vectors: f32[N, D].
  Returns: (the centres f32[count, D], the largest cluster first; the mean squared distance to them).
  Raises: ValueError if there are fewer different vectors than clusters.
  """
  distinct = len(np.unique(vectors, axis=0))
  if count < 1 or distinct < count:
    raise ValueError(f"clusters is {count}, but there are {distinct} different vectors; use at most as many")
  rng = np.random.default_rng(seed)
  found = [_lloyd(vectors, _start(vectors, count, rng), iterations) for _ in range(restarts)]
  centres, error = min(found, key=lambda pair: pair[1])
  sizes = np.bincount(nearest_centre(vectors, centres)[0], minlength=count)
  return centres[np.argsort(-sizes, kind="stable")], error


def nearest_centre(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (the nearest centre i64[N] of each vector f32[N, D], the squared distance to it f32[N])."""
  which, distances = [], []
  for start in range(0, len(vectors), _ROWS):
    found = _squared_distances(vectors[start : start + _ROWS], centres)
    which.append(found.argmin(1))
    distances.append(found.min(1))
  return np.concatenate(which), np.concatenate(distances)


def _squared_distances(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
  cross = vectors @ centres.T
  squares = np.square(vectors).sum(1)[:, None] + np.square(centres).sum(1)
  return np.maximum(squares - 2 * cross, 0)


def _start(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
  """k-means++: each centre is drawn in proportion to the squared distance from the earlier ones."""
  chosen = [int(rng.integers(len(vectors)))]
  distance = np.square(vectors - vectors[chosen[0]]).sum(1, dtype=np.float64)
  for _ in range(count - 1):
    chosen.append(int(rng.choice(len(vectors), p=distance / distance.sum())))
    distance = np.minimum(distance, np.square(vectors - vectors[chosen[-1]]).sum(1, dtype=np.float64))
  return vectors[chosen]


def _lloyd(vectors: np.ndarray, centres: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
  which, distances = nearest_centre(vectors, centres)
  for _ in range(iterations):
    belongs = (which == np.arange(len(centres))[:, None]).astype(vectors.dtype)
    sizes = belongs.sum(1)
    centres = belongs @ vectors / np.maximum(sizes, 1)[:, None]
    empty = np.flatnonzero(sizes == 0)
    centres[empty] = vectors[np.argsort(-distances, kind="stable")[: len(empty)]]
    before = which
    which, distances = nearest_centre(vectors, centres)
    if (which == before).all():
      break
  return centres, float(distances.mean(dtype=np.float64))
