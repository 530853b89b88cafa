"""Tests of clusters and bits of summaries."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from ssl_jax.mining.kmeans import kmeans, nearest_centre
from ssl_jax.mining.sound_targets import fit_targets
from ssl_jax.mining.sound_texture import GROUPS, SIZE
from tests.mining.made_textures import TEXTURES, texture_summaries

RNG = np.random.default_rng(0)


def blobs(count: int = 300, clusters: int = 5) -> tuple[np.ndarray, np.ndarray]:
  which = RNG.integers(0, clusters, count)
  centres = 3 * RNG.normal(size=(clusters, 6))
  return (centres[which] + 0.7 * RNG.normal(size=(count, 6))).astype(np.float32), which


def test_k_means_is_as_good_as_that_of_scikit_learn():
  vectors, _ = blobs()
  for count in (3, 5, 9):
    centres, error = kmeans(vectors, count, seed=0)
    options: Any = {"n_init": 10, "max_iter": 50, "random_state": 0}
    fitted: Any = KMeans(count, **options).fit(vectors)
    assert error <= 1.02 * fitted.inertia_ / len(vectors) and centres.shape == (count, 6)
    which, distances = nearest_centre(vectors, centres)
    assert distances.mean() == pytest.approx(error, rel=1e-4)
    assert (np.diff(np.bincount(which)) <= 0).all()  # the largest cluster first


def test_k_means_is_deterministic_and_needs_different_vectors():
  vectors, _ = blobs()
  np.testing.assert_array_equal(kmeans(vectors, 4, seed=3)[0], kmeans(vectors, 4, seed=3)[0])
  with pytest.raises(ValueError, match="clusters is 4, but there are 3 different vectors"):
    kmeans(np.repeat(np.eye(3, dtype=np.float32), 5, 0), 4, seed=0)
  assert kmeans(np.repeat(np.eye(3, dtype=np.float32), 5, 0), 3, seed=0)[1] == pytest.approx(0, abs=1e-6)


def test_each_group_has_the_same_variance():
  summaries = RNG.normal(size=(400, SIZE)).astype(np.float32) * RNG.uniform(0.1, 10, SIZE).astype(np.float32)
  summaries[:, GROUPS.modulation.start] = 2.5  # a constant has no part in it
  targets = fit_targets(summaries, clusters=2, bits=2)
  scaled = targets.scaled(summaries)
  for group in GROUPS:
    assert scaled[:, group].var(0).sum() == pytest.approx(1, rel=1e-3)
  assert not scaled[:, GROUPS.modulation.start].any()


def test_bits_are_the_signs_of_principal_components_and_those_of_the_mean_are_zero():
  summaries = RNG.normal(size=(200, SIZE)).astype(np.float32) @ np.diag(RNG.uniform(0.1, 3, SIZE)).astype(
    np.float32
  )
  targets = fit_targets(summaries, clusters=2, bits=4)
  projections = PCA(4, svd_solver="full").fit_transform(targets.scaled(summaries).astype(np.float64))
  found = targets.bits(summaries)
  for theirs, bits in zip(projections.T, found.T, strict=True):
    clear = np.abs(theirs) > 1e-4
    assert (bits == (theirs > 0))[clear].all() or (bits != (theirs > 0))[clear].all()
  assert not targets.bits(targets.mean[None]).any()
  assert 0.2 < found.mean() < 0.8


def test_the_spectrum_alone_uses_the_means_of_the_bands():
  summaries = RNG.normal(size=(50, SIZE)).astype(np.float32)
  targets = fit_targets(summaries, clusters=2, bits=2, statistics="spectrum")
  used = np.flatnonzero(targets.scale)
  np.testing.assert_array_equal(used, np.arange(32))


def test_too_few_frames_are_an_error():
  with pytest.raises(ValueError, match="bits is 30, but there are 20 frames with sound; use fewer bits"):
    fit_targets(RNG.normal(size=(20, SIZE)).astype(np.float32), clusters=2, bits=30)


def test_clusters_of_synthetic_textures_are_pure():
  summaries, kinds = texture_summaries(12)
  targets = fit_targets(summaries, clusters=len(TEXTURES), bits=4)
  assert adjusted_rand_score(kinds, targets.clusters(summaries)) > 0.9
  fresh, kinds = texture_summaries(4, seed=1)
  assert adjusted_rand_score(kinds, targets.clusters(fresh)) > 0.9
