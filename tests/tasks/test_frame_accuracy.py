"""Figures of frames by video."""

import numpy as np
import pytest

from ssl_jax.tasks import frame_accuracy as fa

RIGHT = [np.array([1, 1, 0, 1, 1], bool), np.array([1, 1, 1], bool), np.array([0], bool)]


def test_long_videos_do_not_dominate():
  np.testing.assert_allclose(fa.frame_accuracy(RIGHT), [0.8, 1, 0])
  assert fa.bootstrap(fa.frame_accuracy(RIGHT)).value == pytest.approx(0.6)


def test_pm_0_is_the_accuracy_of_the_anchor_and_more_reach_never_helps():
  rng = np.random.default_rng(0)
  right = [rng.random(rng.integers(1, 30)) < 0.8 for _ in range(40)]
  anchors = np.array([of_video[len(of_video) // 2] for of_video in right])
  np.testing.assert_array_equal(fa.pm_accuracy(right, 0), anchors)
  means = [fa.pm_accuracy(right, reach).mean() for reach in (0, 1, 2, 5, 10, 40)]
  assert means == sorted(means, reverse=True) and means[-1] < means[0]
  np.testing.assert_array_equal(fa.pm_accuracy(right, 40), [of_video.all() for of_video in right])


def test_consistency_counts_neighbours():
  predicted = [np.array([1, 1, 2, 2, 2]), np.array([3])]
  np.testing.assert_allclose(fa.consistency(predicted), [0.75, 1])


def test_a_vote_is_that_of_the_latest_frames():
  predicted = np.array([0, 0, 1, 0, 1, 1, 2])
  assert fa.vote(predicted, 1, 3).tolist() == predicted.tolist()
  assert fa.vote(predicted, 3, 3).tolist() == [0, 0, 0, 0, 1, 1, 1]
  assert fa.vote(predicted, 2, 3).tolist() == [0, 0, 1, 0, 1, 1, 2]  # of equal ones the latest


def test_intervals_hold_the_value_and_shrink_with_the_number_of_videos():
  rng = np.random.default_rng(1)
  few, many = (fa.bootstrap(rng.random(count)) for count in (10, 1000))
  assert few.low < few.value < few.high and many.high - many.low < few.high - few.low


def test_a_perfect_classifier_has_no_drop():
  assert fa.drop(np.ones(50, bool), np.ones(7)) == (0, 0, 0)
  found = fa.drop(np.arange(100) < 90, np.full(20, 0.6))
  assert found.value == pytest.approx(0.3) and 0.2 < found.low < 0.3 < found.high < 0.4
