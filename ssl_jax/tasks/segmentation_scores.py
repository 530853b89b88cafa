"""Scores of a semantic segmentation, from one confusion matrix of all pixels of a data set.

The matrices of batches and of processes are added; the scores are computed once, at the end. (The mean of the
scores of single images is another number.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_jax import metrics
from ssl_jax.augment.record_moves import IGNORE


class Scores(NamedTuple):
  """Fractions in [0, 1]; nan where there is nothing to divide by."""

  miou: float  # the mean of `iou` over the classes that occur in the truth
  pixel_accuracy: float  # the fraction of pixels whose class was predicted
  mean_accuracy: float  # the mean over the same classes of the fraction of their pixels that were predicted
  iou: np.ndarray  # f64[C]: intersection over union; 0 for a class that was only predicted

  def scalars(self) -> dict[str, float]:
    """The three numbers by name, the main one first."""
    return {"miou": self.miou, "pixel_accuracy": self.pixel_accuracy, "mean_accuracy": self.mean_accuracy}


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """i64[C, C]: entry (i, j) counts the pixels of class i that were predicted as class j.

  Args:
    labels: integers of any shape, in [0, C) or IGNORE, at the resolution of the original mask.
    predictions: integers of the same shape, in [0, C); where the label is IGNORE any value is allowed.
  Raises: ValueError for values out of range; the message names the value.
  """
  return metrics.confusion_matrix(labels, predictions, num_classes, ignore=IGNORE)


def scores(matrix: np.ndarray) -> Scores:
  """The scores of a confusion matrix i64[C, C], whose rows are the true classes.

  The means are over the classes that occur in the truth. MMSegmentation leaves out only the classes that
  occur in neither the truth nor the predictions, so a class that was predicted but does not occur counts
  there as an IoU of 0. The two agree where every class occurs, as in the validation sets of PASCAL VOC,
  Cityscapes and ADE20K. For parts of a data set this rule is the steadier one: a single wrong pixel does not
  change the number of classes in the mean. The pixel counts as an error of its true class in either case.
  Source: Everingham et al. 2015 (PASCAL VOC); Long et al. 2015 (FCN), section 5.
  """
  hits = np.diag(matrix).astype(np.float64)
  true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
  iou = _ratio(hits, true + predicted - hits)
  accuracy = _ratio(hits, true)
  occurs = true > 0
  mean = lambda values: float(values[occurs].mean()) if occurs.any() else float("nan")
  return Scores(mean(iou), float(_ratio(hits.sum(), true.sum())), mean(accuracy), iou)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """part / whole, nan where whole is 0."""
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
