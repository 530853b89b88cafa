"""The numbers and rules by which published detectors differ."""

from __future__ import annotations

from typing import NamedTuple

from ssl_jax.detect.anchors import Convention

FOREGROUND = 0.25  # largest fraction of foreground among the RoIs that train the heads


class Rules(NamedTuple):
  """In what the two code bases differ whose weights and protocols are used."""

  anchors: Convention
  aligned: bool  # of RoIAlign
  beta: float  # of the smooth L1 losses
  least_proposal: float  # pixels that both sides of a proposal must exceed
  least_box: float  # the same of a detection


RULES: dict[Convention, Rules] = {
  "detectron2": Rules("detectron2", True, 0.0, 0.0, 0.0),
  "torchvision": Rules("torchvision", False, 1 / 9, 1e-3, 1e-2),
}


class Limits(NamedTuple):
  """Numbers of boxes. Pairs are (training, test)."""

  before: tuple[int, int]  # proposals of each level that enter the suppression
  proposals: tuple[int, int]  # that leave it
  anchors: int = 256  # that the loss of the RPN samples in an image
  rois: int = 512  # that the losses of the heads sample in an image
  detections: int = 100
  candidates: int = 2000  # pairs of RoI and class that enter the suppression of detections
  least_score: float = 0.05  # of a detection


LIMITS = {"c4": Limits((12_000, 6000), (2000, 1000)), "fpn": Limits((2000, 1000), (1000, 1000))}
