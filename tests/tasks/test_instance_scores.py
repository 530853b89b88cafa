"""Average precision of the objects of a semantic segmenter, by hand."""

import numpy as np
import pytest

from ssl_jax.data.mask_values import IGNORE
from ssl_jax.tasks import instance_scores
from ssl_jax.tasks.partial_results import NOTHING_KEPT
from ssl_jax.tasks.segmented_frame import Frame
from ssl_jax.tasks.stream_rows import FrameRows

pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")
pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: extra `detection`")

NAMES = ("road", "car", "dog")
THINGS = ("car", "dog")


def frame(truth, segments, predicted, confidence=None):
  truth, predicted = np.array(truth, np.uint8), np.array(predicted, np.uint8)
  confidence = np.ones(truth.shape) if confidence is None else np.array(confidence)
  return Frame(truth, np.stack([predicted] * 3), np.array(segments, np.int32), np.stack([confidence] * 3))


def scores(*frames):
  measure = instance_scores.make_measure(NAMES, THINGS)
  rows = FrameRows(NOTHING_KEPT, {})
  for one in frames:
    rows.add(measure.count(one))
  return measure.report(rows.arrays(), [])


CARS = [[1, 1, 0, 1, 1]] * 4, [[5, 5, 1, 6, 6]] * 4  # two cars


def test_objects_that_are_found_exactly():
  scalars, details = scores(frame(*CARS, CARS[0]))
  assert scalars["mask_ap"] == pytest.approx(1.0) and scalars["mask_ap_frozen"] == pytest.approx(1.0)
  assert details["by_class"] == pytest.approx({"car": 1.0})


def test_one_of_two_objects():
  """Recall 1/2 at precision 1: 51 of the 101 points of COCO's curve."""
  scalars, _ = scores(frame(*CARS, [[1, 1, 0, 0, 0]] * 4))
  assert scalars["mask_ap"] == pytest.approx(51 / 101)


def test_objects_are_ranked_by_their_mean_probability():
  predicted = [[1, 1, 0, 0, 1], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
  truth, segments = [[1, 1, 0, 0, 0]] * 4, [[5, 5, 1, 1, 1]] * 4
  sure, unsure = np.full((4, 5), 0.9), np.full((4, 5), 0.9)
  sure[:, 4], unsure[0, 0] = 0.5, 0.2  # of the wrong object; of one pixel of the right one
  assert scores(frame(truth, segments, predicted, sure))[0]["mask_ap"] == pytest.approx(1.0)
  assert scores(frame(truth, segments, predicted, unsure))[0]["mask_ap"] == pytest.approx(0.5)


def test_pixels_without_a_class_are_cut_off():
  truth = [[1, 1, IGNORE, IGNORE, 0]] * 4
  scalars, _ = scores(frame(truth, [[5, 5, 1, 1, 1]] * 4, [[1, 1, 1, 2, 0]] * 4))
  assert scalars["mask_ap"] == pytest.approx(1.0)


def test_crowds_and_frames_without_labels_do_not_count():
  empty = frame([[IGNORE] * 5] * 4, [[0] * 5] * 4, CARS[0])
  crowd = frame([[1] * 5] * 4, [[-7] * 5] * 4, CARS[0])
  scalars, _ = scores(empty, frame(*CARS, CARS[0]), crowd)
  assert scalars["mask_ap"] == pytest.approx(1.0)
