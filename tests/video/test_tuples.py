"""Five frames for shuffle and learn: the distances between them, and windows with motion and without cuts."""

import numpy as np
import pytest

from ssl_jax.video.motion import Motion
from ssl_jax.video.tuples import TRIPLETS, Spans, Windows, find_windows, look_alike, sample_frames


def still(frames: int, amount: float = 0.01) -> Motion:
  return Motion(np.full(frames - 1, amount, np.float32), np.zeros(frames - 1, bool))


def draws(motion: Motion, spans: Spans, count: int = 2000) -> np.ndarray:
  rng, windows = np.random.default_rng(0), find_windows(motion, spans)
  return np.stack([sample_frames(rng, windows, spans) for _ in range(count)])


@pytest.mark.parametrize("frames", [33, 40, 91, 300])
@pytest.mark.parametrize("spans", [Spans(), Spans(span=30, gap=8)])
def test_five_frames_keep_their_distances(frames, spans):
  a, b, c, d, e = draws(still(frames), spans).T
  assert (a >= 0).all() and (e < frames).all()
  assert (a < b).all() and (b < c).all() and (c < d).all() and (d < e).all()
  assert (b - a >= spans.gap).all() and (e - d >= spans.gap).all() and (d - b <= spans.span).all()
  assert (e - a < spans.window).all()
  if frames >= spans.window:  # every distance that is allowed occurs
    assert (d - b).max() == spans.span and (d - b).min() == spans.gap
    assert (b - a).min() == spans.gap and (e - d).min() == spans.gap
    assert (c - b).min() == 1 and (d - c).min() == 1


def test_the_ends_of_both_classes_are_the_same_frames():
  assert {(first, last) for first, _, last, _ in TRIPLETS} == {(1, 3), (3, 1)}
  assert {(middle, label) for _, middle, _, label in TRIPLETS} == {(2, 1), (0, 0), (4, 0)}
  for label, count in ((1, 2), (0, 4)):
    rows = [row for row in TRIPLETS if row[3] == label]
    assert len(set(rows)) == count  # each with its reverse
    assert {(last, middle, first, same) for first, middle, last, same in rows} == set(rows)


def test_windows_are_drawn_in_proportion_to_their_motion():
  motion = still(400, 0.001)
  motion.amounts[200:] = 0.009
  windows = find_windows(motion, Spans())
  assert windows.motion[0] == pytest.approx(0.001) and windows.motion[-1] == pytest.approx(0.009)
  late = (draws(motion, Spans())[:, 2] >= 200).mean()
  centres = windows.first + 45
  assert late == pytest.approx(windows.motion[centres >= 200].sum() / windows.motion.sum(), abs=0.05)


def test_windows_stay_within_a_shot():
  motion = still(250)
  motion.cuts[[99, 119]] = True  # shots of 100, 20 and 130 frames
  found = draws(motion, Spans(), 500)
  inside = (found[:, -1] < 100) | (found[:, 0] >= 120)
  assert inside.all() and (found[:, 0] >= 120).any() and (found[:, -1] < 100).any()


def test_a_short_clip_has_no_window():
  assert not len(find_windows(still(32), Spans()).first)
  assert len(find_windows(still(33), Spans()).first) == 1
  assert not len(find_windows(Motion(np.zeros(0, np.float32), np.zeros(0, bool)), Spans()).first)
  one = Windows(np.array([0]), np.array([33]), np.array([0.1]))
  found = sample_frames(np.random.default_rng(0), one, Spans())
  np.testing.assert_array_equal(found, [0, 15, 16, 17, 32])  # the only choice


@pytest.mark.parametrize("place, alike", [(0, True), (4, True), (1, False), (3, False)])
def test_the_middle_must_differ_from_the_outer_frames(place, alike):
  frames = np.stack([np.full((8, 8, 3), 50 * i, np.uint8) for i in range(5)])
  assert not look_alike(frames, 25.0)
  frames[place] = frames[2] + 4  # a mean squared difference of 16
  assert look_alike(frames, 25.0) == alike


def test_spans_out_of_range_are_refused():
  with pytest.raises(ValueError, match="span is 1, but a frame lies between the ends; use 2 or more"):
    Spans(span=1).check()
  with pytest.raises(ValueError, match="gap is 0; use a positive number"):
    Spans(gap=0).check()
