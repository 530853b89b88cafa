"""Object detection and instance segmentation: Faster R-CNN and Mask R-CNN. With config.start, an encoder is
transferred to it."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from ssl_jax.abilities import ObjectDetector, Pyramid
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.detect.anchors import Convention
from ssl_jax.detect.rules import LIMITS, Limits
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, frozen_parts
from ssl_jax.models.detection import Detector, RoiHead, detector

ABILITIES = (Pyramid, ObjectDetector)
STAGES = 5  # the stem and the four stages of a ResNet, which `freeze` counts


class Parts(NamedTuple):
  """The network and options of the method."""

  net: Detector
  masks: bool
  further: tuple[str, ...]  # entries of a batch that a further head needs
  frozen_norms: bool
  freeze: int


def make(
  encoder: Network,
  data: DataSpec,
  *,
  kind: Literal["c4", "fpn"] = "c4",
  masks: bool = False,
  agnostic: bool = False,
  batch_norm: Literal["trained", "frozen"] = "trained",
  freeze: int = 0,
  fpn_norm: bool = False,
  extra_norm: bool = True,
  ignore_crowds: bool = False,
  convention: Convention = "detectron2",
  channels: int = 256,
  hidden: int = 1024,
  samples: int = 2,
  anchor_scale: float = 1.0,
  anchors: int = 256,
  rois: int = 512,
  before: tuple[int, ...] = (),
  proposals: tuple[int, ...] = (),
  detections: int = 100,
  least_score: float = 0.05,
) -> Method:
  """Faster R-CNN, or Mask R-CNN with `masks`, on a ResNet; the loss is the sum of its four or five losses.

  The loss takes "image" f32[B, H, W, 3], "boxes" f32[B, G, 4] pixels, "boxes_class" i32[B, G], "boxes_valid"
  and "boxes_crowd" bool[B, G], for masks "boxes_mask" uint8[B, G, m, m] in the frames of the boxes, and
  perhaps "image_size" i32[B, 2], the upper left part that is not padding. Difficult objects (VOC) are trained
  as any other.

  Args:
    encoder: a ResNet of four stages with the stem "imagenet".
    data: its `num_classes` is the number of classes, without the background.
    kind: "c4": an RPN on the third stage, the fourth stage on each RoI (MoCo's VOC protocol); "fpn": a
      feature pyramid and two dense layers.
    masks: adds a mask head; the data needs masks of the objects (config.host.name="image_instances").
    agnostic: one box for all classes of a RoI instead of one for each.
    batch_norm: of the encoder. "trained": statistics of the batch (MoCo fine-tunes so); "frozen": running
      statistics, and scales and biases stay as they are.
    freeze: how many parts of the encoder stay as they are, the stem first, then the stages; 2 in
      detectron2's baselines, 0 in MoCo's protocol. Needs batch_norm="frozen".
    fpn_norm: BatchNorm in the pyramid (MoCo's COCO protocol).
    extra_norm: for "c4", a BatchNorm after the fourth stage (MoCo).
    ignore_crowds: whether background inside a crowd is left out of the losses.
    convention: whose anchors, RoIAlign and box losses: see `detect.rules.RULES`.
    channels: of the pyramid and the mask head.
    hidden: width of the dense layers of "fpn".
    samples: of RoIAlign in a bin along each axis.
    anchor_scale: multiplies the sizes of the anchors, 32 to 512 pixels; 0.5 suits images half as large.
    anchors, rois: that the losses of the RPN and of the heads sample in an image.
    before, proposals: proposals of each level before and after their suppression, (training, test); (): as
      published, (12000, 6000) and (2000, 1000) for "c4", (2000, 1000) and (1000, 1000) for "fpn".
    detections: reported for an image, at most.
    least_score: of a detection.
  Metrics: each loss, as `loss_classes` and so on.
  Raises: ValueError if the data has no boxes, or no masks where they are needed, for options out of range,
    and for an encoder that does not fit.
  Source: Ren et al. 2015; He et al. 2017; He et al. 2020, "Momentum Contrast", appendix; detectron2.
  """
  limits = make_limits(kind, anchors, rois, before, proposals, detections, least_score)
  _check(data, masks)
  return assemble(
    encoder,
    data,
    kind=kind,
    masks=masks,
    agnostic=agnostic,
    batch_norm=batch_norm,
    freeze=freeze,
    fpn_norm=fpn_norm,
    extra_norm=extra_norm,
    ignore_crowds=ignore_crowds,
    convention=convention,
    channels=channels,
    hidden=hidden,
    samples=samples,
    anchor_scale=anchor_scale,
    limits=limits,
  )


def assemble(
  encoder: Network,
  data: DataSpec,
  *,
  masks: bool = False,
  batch_norm: Literal["trained", "frozen"] = "trained",
  freeze: int = 0,
  convention: Convention = "detectron2",
  anchor_scale: float = 1.0,
  further: RoiHead | None = None,
  targets: tuple[str, ...] = (),
  **options,
) -> Method:
  """The method from the options of `make` and `models.detection.detector`, perhaps with a further head.

  Args:
    further: see `detector`; targets: entries of a batch that it needs.
  Raises: ValueError for options out of range.
  """
  _check_encoder(batch_norm, freeze, anchor_scale)
  options |= dict(batch_norm=batch_norm, convention=convention, anchor_scale=anchor_scale, further=further)
  net = detector(encoder, data.num_classes, masks=masks, **options)
  parts = Parts(net, masks, targets, batch_norm == "frozen", freeze)
  bound = functools.partial
  abilities = {
    Pyramid: Pyramid(bound(_read, encoder, pyramid=True)),
    ObjectDetector: ObjectDetector(bound(_predict, parts), data.num_classes, convention),
  }
  return Method(bound(_init, parts), bound(_loss, parts), keep_extra, bound(_read, encoder), abilities)


def _init(parts: Parts, key, batch: Batch) -> Init:
  weights = parts.net.init(key, batch["image"])
  return Init(*frozen_parts.take_out(weights, functools.partial(_is_frozen, parts)))


def _is_frozen(parts: Parts, path: tuple[str, ...]) -> bool:
  if path[0] != "encoder":
    return False
  stage = 0 if path[1].endswith("_stem") else int(path[1].removeprefix("stage")[0])
  return stage < parts.freeze or (parts.frozen_norms and path[-1] in ("scale", "bias"))


def _loss(parts: Parts, params, model_state, extra, batch: Batch, key):
  weights = frozen_parts.whole(params, model_state)
  names = ("boxes", "boxes_class", "boxes_valid", "boxes_crowd")
  targets = {name: batch[name] for name in (*names, *parts.further)}
  if parts.masks:
    targets |= {"masks": batch["boxes_mask"], "mask_frames": batch["boxes"]}
  images = batch["image"]
  everything = jnp.broadcast_to(jnp.asarray(images.shape[1:3], jnp.int32), (len(images), 2))
  sizes = batch.get("image_size", everything)
  terms, state = parts.net.train_loss(weights, images, sizes, targets, key)
  metrics = {f"loss_{name}": Mean.of(value) for name, value in terms.items()}
  return sum(terms.values(), jnp.zeros(())), Aux({**model_state, **state}, metrics=metrics)


def _predict(parts: Parts, params, model_state, images, image_sizes):
  return parts.net.predict(frozen_parts.whole(params, model_state), images, image_sizes)


def _read(encoder: Network, params, model_state, images, **call):
  """Returns the features of the encoder, or with `pyramid=True` its feature maps."""
  weights = frozen_parts.whole(params, model_state)
  return encoder.apply(Weights(weights.params["encoder"], weights.model_state["encoder"]), images, **call)[0]


def make_limits(
  kind: str, anchors: int, rois: int, before, proposals, detections: int, least_score: float
) -> Limits:
  """The numbers of boxes from the options of `make`. Raises ValueError for options out of range."""
  for name, value in (("anchors", anchors), ("rois", rois), ("detections", detections)):
    if value < 1:
      raise ValueError(f"config.method.{name} is {value}; use a positive number")
  for name, pair in (("before", before), ("proposals", proposals)):
    if pair and (len(pair) != 2 or min(pair) < 1):
      raise ValueError(
        f"config.method.{name} is {pair}; use two positive numbers, for training and for tests, or () for "
        "the published ones"
      )
  if not 0 <= least_score < 1:
    raise ValueError(f"config.method.least_score is {least_score}; use a probability, such as 0.05")
  published = LIMITS.get(kind, LIMITS["fpn"])  # `detector` refuses other kinds
  options: dict[str, Any] = dict(anchors=anchors, rois=rois, detections=detections, least_score=least_score)
  pairs = {name: pair for name, pair in (("before", before), ("proposals", proposals)) if pair}
  return published._replace(**options, **pairs)


def _check(data: DataSpec, masks: bool) -> None:
  needed = ("boxes", "boxes_mask") if masks else ("boxes",)
  if not set(needed) <= set(data.elements):
    raise ValueError(
      f"method 'detection' needs {' and '.join(needed)} of every image, but config.host.name delivers only "
      f"{', '.join(data.elements)}; use config.host.name={'image_instances' if masks else 'image_boxes'!r}"
    )


def _check_encoder(batch_norm: str, freeze: int, anchor_scale: float) -> None:
  if not 0 <= freeze <= STAGES:
    raise ValueError(f"config.method.freeze is {freeze}; use a number of parts of the encoder, 0 to {STAGES}")
  if freeze and batch_norm != "frozen":
    raise ValueError(
      f"config.method.freeze is {freeze}, but the BatchNorm of the encoder is {batch_norm!r}; use "
      "config.method.batch_norm='frozen'"
    )
  if anchor_scale <= 0:
    raise ValueError(f"config.method.anchor_scale is {anchor_scale}; use a positive factor, such as 0.5")
