"""Scores of segmented frames beside the mean intersection over union, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ssl_jax.tasks import contour_scores, instance_scores, panoptic_scores
from ssl_jax.tasks.segmented_frame import Measure
from ssl_jax.tasks.task import TestRecords

Score = Literal["davis", "panoptic", "instances"]
MEASURES: Mapping[str, Callable[..., Measure]] = {
  "davis": contour_scores.make_measure,
  "panoptic": panoptic_scores.make_measure,
  "instances": instance_scores.make_measure,
}


def make_measures(scores: Sequence[Score], names: Sequence[str], records: TestRecords) -> dict[str, Measure]:
  """Makes the measures called `scores`, by name.

  Args:
    names: of the classes that the network distinguishes.
  Raises: ValueError if the test records do not tell what a measure needs; ImportError if a package that it
    needs is not installed.
  """
  things = tuple(name for name in names if name in records.things)
  found = {score: MEASURES[score](tuple(names), things) for score in scores}
  for score, measure in found.items():
    if measure.segments and not ({"segments"} <= set(records.fields) and things):
      raise ValueError(
        f"config.tasks.ttt_video.scores has {score!r}, which needs test masks that tell objects apart, of "
        "classes that the network knows; use a data set such as config.data.name='kitti_step', without "
        "config.data.cache, or leave the score out"
      )
  return found
