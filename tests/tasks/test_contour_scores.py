"""DAVIS's measures: masks whose J and F are known, and the statistics over a video."""

import numpy as np
import pytest

from ssl_jax.data.mask_values import IGNORE
from ssl_jax.tasks import contour_scores
from ssl_jax.tasks.segmented_frame import Frame
from ssl_jax.tasks.video_streams import Video

pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

NAMES = ("background", "object")


def square(top, left, side=20, size=(100, 100)):
  mask = np.zeros(size, bool)
  mask[top : top + side, left : left + side] = True
  return mask


def test_region_similarity():
  assert contour_scores.region_similarity(square(0, 0), square(0, 10)) == pytest.approx(200 / 600)
  empty = np.zeros((100, 100), bool)
  assert contour_scores.region_similarity(empty, empty) == 1.0
  assert contour_scores.region_similarity(square(0, 0), empty) == 0.0


def test_the_contour_lies_above_and_left_of_the_border():
  found = contour_scores.contour(square(1, 1, 2, (4, 4)))
  assert found.astype(int).tolist() == [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_contours_within_the_tolerance_are_right():
  """100x100 pixels: 0.008 of the diagonal is 1.13, rounded up to 2 pixels.

  The contour of a square of 20 pixels is a ring of 80. Moved by 3 pixels, all 38 of the sides are near the
  other ring, and of the line that lies inside it 6, beside its sides.
  """
  assert contour_scores.contour_accuracy(square(30, 30), square(32, 30)) == 1.0
  assert contour_scores.contour_accuracy(square(30, 30), square(33, 30)) == pytest.approx(44 / 80)
  assert contour_scores.contour_accuracy(square(30, 30), square(70, 70)) == 0.0


def test_contours_of_lines_by_hand():
  """Rows 3 apart, both ends cut off by the frame: of two lines each, one is near."""
  truth, found = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
  truth[10:20], found[10:23] = True, True  # lines at rows 9 and 19, 9 and 22; the tolerance is 1 pixel
  assert contour_scores.contour_accuracy(truth, found) == pytest.approx(0.5)
  found[10:30] = False  # no contour: precision 1, recall 0
  assert contour_scores.contour_accuracy(truth, found) == 0.0
  assert contour_scores.contour_accuracy(found, found) == 1.0


def test_statistics_of_a_video():
  """Borders of the quarters of 9 frames: 0, 2, 4, 6, 8; they belong to both."""
  values = np.array([1.0, 0.8, 0.9, 0.5, 0.4, 0.6, 0.3, 0.6, 0.0])
  mean, recall, decay = contour_scores.statistics(values)
  assert mean == pytest.approx(values.mean()) and recall == pytest.approx(5 / 9)
  assert decay == pytest.approx(0.9 - 0.3)
  assert contour_scores.statistics(np.array([0.7])) == pytest.approx((0.7, 1.0, 0.0))


def test_the_report_averages_over_videos_and_leaves_out_frames_without_labels():
  measure = contour_scores.make_measure(NAMES, ())
  half = square(30, 30).astype(np.uint8)
  good = Frame(half, np.stack([half, half, np.zeros_like(half)]))
  unknown = Frame(np.full_like(half, IGNORE), good.predicted)
  frames = [good, unknown, good, Frame(half, np.stack([np.zeros_like(half)] * 3))]
  rows = {
    "davis": np.stack([np.asarray(measure.count(frame)["davis"]) for frame in frames]),
    "video": np.array([0, 0, 0, 1]),
    "moment": np.array([0, 1, 2, 0]),
    "index": np.arange(4),
  }
  scalars, details = measure.report(rows, [Video("a", 0, np.arange(3)), Video("b", 1, np.array([3]))])
  assert details["by_video"]["a"]["adapted"]["j_mean"] == 1.0
  assert scalars["j_mean"] == 0.5 and scalars["j_and_f"] == 0.5 and scalars["f_recall"] == 0.5
  assert scalars["j_and_f_frozen"] == 0.0


def test_pixels_without_a_class_do_not_count():
  measure = contour_scores.make_measure(NAMES, ())
  truth = square(30, 30).astype(np.uint8)
  predicted = truth.copy()
  predicted[80:, 80:], truth[78:, 78:] = 1, IGNORE
  counted = np.asarray(measure.count(Frame(truth, np.stack([predicted] * 3)))["davis"])
  assert (counted == 1).all()


def test_a_background_is_needed():
  with pytest.raises(ValueError, match="needs a class 'background', but the classes are road, car, ..."):
    contour_scores.make_measure(("road", "car"), ())
