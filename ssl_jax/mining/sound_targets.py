"""Turns summaries of sound into targets: clusters, and bits of their principal components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_jax.mining import sound_texture
from ssl_jax.mining.kmeans import kmeans, nearest_centre

# what is used of the summaries: all groups, or the mean of each band alone, the baseline of the paper
STATISTICS = {"all": sound_texture.GROUPS, "spectrum": (slice(0, sound_texture.CHANNELS),)}


class SoundTargets(NamedTuple):
  """What was fitted to the summaries of the training clips."""

  mean: np.ndarray  # f32[502], of each dimension
  scale: np.ndarray  # f32[502]: what the difference from the mean is multiplied by; 0: not used
  centres: np.ndarray  # f32[K, 502], of the clusters of scaled summaries
  components: np.ndarray  # f32[P, 502], unit norm, of scaled summaries; largest variance first

  def scaled(self, summaries: np.ndarray) -> np.ndarray:
    """Scales summaries f32[N, 502]."""
    return (summaries - self.mean) * self.scale

  def clusters(self, summaries: np.ndarray) -> np.ndarray:
    """The cluster i64[N] of each summary."""
    return nearest_centre(self.scaled(summaries), self.centres)[0]

  def bits(self, summaries: np.ndarray) -> np.ndarray:
    """bool[N, P]: whether each summary lies above the training mean along each component."""
    return self.scaled(summaries) @ self.components.T > 0


def fit_targets(
  summaries: np.ndarray, *, clusters: int, bits: int, statistics: str = "all", seed: int = 0
) -> SoundTargets:
  """Fits clusters and components to summaries f32[N, 502].

  Every dimension gets mean 0 and variance 1, and every group of statistics the same variance in total:
  otherwise the many energies of modulations would decide alone.

  Args:
    statistics: a key of STATISTICS.
  Raises: ValueError if there are too few different summaries for so many clusters or bits.
  """
  if bits < 1 or len(summaries) <= bits:
    raise ValueError(
      f"bits is {bits}, but there are {len(summaries)} frames with sound; use fewer bits than frames"
    )
  mean = summaries.mean(0, dtype=np.float64)
  deviation = summaries.std(0, dtype=np.float64)
  scale = np.zeros(summaries.shape[1])
  for group in STATISTICS[statistics]:
    varies = deviation[group] > 1e-6 * np.maximum(np.abs(mean[group]), 1e-6)
    inverse = np.where(varies, 1 / np.where(varies, deviation[group], 1.0), 0.0)
    scale[group] = inverse / np.sqrt(max(varies.sum(), 1))
  fitted = SoundTargets(mean.astype(np.float32), scale.astype(np.float32), *(np.zeros((0, 0)),) * 2)
  scaled = fitted.scaled(summaries)
  centres, _ = kmeans(scaled, clusters, seed=seed)
  return fitted._replace(centres=centres, components=_components(scaled, bits))


def _components(scaled: np.ndarray, count: int) -> np.ndarray:
  """The leading principal components f32[count, D]; the largest entry of each is positive."""
  _, vectors = np.linalg.eigh(scaled.T.astype(np.float64) @ scaled)
  found = vectors[:, ::-1][:, :count].T
  largest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
  return (found * np.sign(largest)).astype(np.float32)
