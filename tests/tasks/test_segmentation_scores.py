"""Scores of segmentations, compared with the example of the specification and with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from ssl_jax.augment.record_moves import IGNORE
from ssl_jax.tasks.segmentation_scores import confusion, scores


def test_the_example_of_the_specification():
  labels, predictions = np.array([0, 0, 1, 1, 255], np.uint8), np.array([0, 1, 1, 1, 0], np.uint8)
  matrix = confusion(labels, predictions, 2)
  assert matrix.dtype == np.int64 and matrix.tolist() == [[1, 1], [0, 2]]
  found = scores(matrix)
  np.testing.assert_allclose(found.iou, [1 / 2, 2 / 3])
  assert found.scalars() == pytest.approx({"miou": 7 / 12, "pixel_accuracy": 3 / 4, "mean_accuracy": 3 / 4})
  assert next(iter(found.scalars())) == "miou"


def random_maps(classes: int, seed: int):
  """Two masks uint8[3, 17, 23] that often agree; a tenth of the labels is IGNORE."""
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, classes, (3, 17, 23)).astype(np.uint8)
  wrong = draw.integers(0, classes, labels.shape).astype(np.uint8)
  predictions = np.where(draw.random(labels.shape) < 0.6, labels, wrong)
  labels[draw.random(labels.shape) < 0.1] = IGNORE
  return labels, predictions


@pytest.mark.parametrize("classes", [2, 21, 150])
def test_random_maps_score_as_in_scikit_learn(classes):
  labels, predictions = random_maps(classes, seed=classes)
  matrix = confusion(labels, predictions, classes)
  kept = labels != IGNORE
  true, found = labels[kept], predictions[kept]
  np.testing.assert_array_equal(matrix, confusion_matrix(true, found, labels=range(classes)))
  present = np.unique(true)
  result = scores(matrix)
  by_class = jaccard_score(true, found, average=None, labels=present)
  np.testing.assert_allclose(result.iou[present], by_class)
  assert result.miou == pytest.approx(jaccard_score(true, found, average="macro", labels=present))
  assert result.pixel_accuracy == pytest.approx(accuracy_score(true, found))
  assert result.mean_accuracy == pytest.approx(recall_score(true, found, average="macro", labels=present))


def test_matrices_of_batches_add_to_that_of_the_set():
  labels, predictions = random_maps(9, seed=1)
  parts = sum(confusion(labels[i], predictions[i], 9) for i in range(3))
  np.testing.assert_array_equal(parts, confusion(labels, predictions, 9))
  each = np.mean([scores(confusion(labels[i], predictions[i], 9)).miou for i in range(3)])
  assert abs(each - scores(parts).miou) > 1e-3  # the mean over images is another number


def test_classes_that_do_not_occur():
  """Class 2 is predicted once and does not occur; class 3 occurs nowhere."""
  found = scores(confusion(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), 4))
  np.testing.assert_array_equal(found.iou, [0.5, 1.0, 0.0, np.nan])
  assert found.miou == 0.75 and found.mean_accuracy == 0.75
  assert np.nanmean(found.iou) == 0.5  # what MMSegmentation reports


def test_a_set_without_labels_has_no_score():
  found = scores(confusion(np.full(4, IGNORE, np.uint8), np.zeros(4, np.uint8), 3))
  assert np.isnan([*found.scalars().values(), *found.iou]).all()


def test_labels_beyond_the_classes_are_refused():
  """ADE20K's masks before 1 is subtracted have 151 values."""
  with pytest.raises(ValueError, match="there is the label 150, but only 150 classes, 0 to 149; check"):
    confusion(np.array([0, 150], np.uint8), np.array([0, 1], np.uint8), 150)
