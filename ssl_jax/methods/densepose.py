"""DensePose: a detector of people whose dense head finds the place of every pixel on the body's surface.

With config.start, an encoder is transferred to it.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from ssl_jax.abilities import DensePose, ObjectDetector, Pyramid
from ssl_jax.core import DataSpec, Method
from ssl_jax.detect.anchors import Convention
from ssl_jax.detect.densepose_losses import NAMES
from ssl_jax.methods import detection
from ssl_jax.models import Network
from ssl_jax.models.densepose import dense_head

ABILITIES = (Pyramid, ObjectDetector, DensePose)


def make(
  encoder: Network,
  data: DataSpec,
  *,
  coarse: int = 2,
  dense_channels: int = 256,
  dense_width: int = 512,
  dense_layers: int = 8,
  dense_rois: int = 64,
  dense_legacy: bool = False,
  images_summed: int = 2,
  batch_norm: Literal["trained", "frozen"] = "trained",
  freeze: int = 0,
  fpn_norm: bool = False,
  convention: Convention = "detectron2",
  channels: int = 256,
  hidden: int = 1024,
  anchor_scale: float = 1.0,
  anchors: int = 256,
  rois: int = 512,
  before: tuple[int, ...] = (),
  proposals: tuple[int, ...] = (),
  detections: int = 100,
  least_score: float = 0.05,
) -> Method:
  """Faster R-CNN on a feature pyramid with the head of DensePose; the loss is the sum of its seven losses.

  The loss takes what that of `detection.make` takes, and the entries of the host transform
  `image_densepose`. Objects without valid points train the boxes only. The head does not distinguish classes,
  of which DensePose-COCO has one.

  Args:
    encoder, data: as in `detection.make`.
    coarse: outputs of the coarse segmentation: 2, or 15 for the 14 segments of the body and the background.
    dense_channels, dense_width, dense_layers: channels of the decoder, and the width and the number of the
      convolutions of the head.
    dense_rois: the most RoIs of an image on which the dense losses are computed; the original has no bound.
    dense_legacy: RoIAlign and the places of points as in the released networks, without half-pixel shifts.
    images_summed: the loss of U and V is a sum over each this many images, averaged over the batch; 2 are the
      images of a GPU in the original.
    batch_norm, freeze, fpn_norm, convention, channels, hidden, anchor_scale, anchors, rois, before,
      proposals, detections, least_score: as in `detection.make`.
  Metrics: each loss, as `loss_fine` and so on.
  Raises: ValueError if the data has no annotated points, for options out of range, and for an encoder that
    does not fit.
  Source: Güler et al. 2018, "DensePose"; detectron2's project DensePose (densepose_rcnn_R_50_FPN_s1x).
  """
  _check(data)
  head = dense_head(
    coarse=coarse,
    channels=dense_channels,
    width=dense_width,
    convolutions=dense_layers,
    aligned=not dense_legacy,
    rois=dense_rois,
    images_summed=images_summed,
    dtype=jnp.dtype(getattr(encoder.module, "dtype", "float32")),
  )
  method = detection.assemble(
    encoder,
    data,
    kind="fpn",
    batch_norm=batch_norm,
    freeze=freeze,
    fpn_norm=fpn_norm,
    convention=convention,
    channels=channels,
    hidden=hidden,
    anchor_scale=anchor_scale,
    limits=detection.make_limits("fpn", anchors, rois, before, proposals, detections, least_score),
    further=head,
    targets=NAMES,
  )
  dense = DensePose(method.abilities[ObjectDetector].predict)
  return method._replace(abilities={**method.abilities, DensePose: dense})


def _check(data: DataSpec) -> None:
  missing = [name for name in ("boxes", *NAMES) if name not in data.elements]
  if missing:
    raise ValueError(
      f"method 'densepose' needs {', '.join(missing)} of every image, but config.host.name delivers only "
      f"{', '.join(data.elements)}; use config.host.name='image_densepose'"
    )
