"""Detectors in two stages, Faster R-CNN and Mask R-CNN, assembled from networks and `ssl_jax.detect`.

The shapes of all arrays are static: images are padded to one size, objects, proposals, RoIs and detections
are padded to fixed numbers of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.config.checked import nearest
from ssl_jax.core import Key, Weights
from ssl_jax.detect import losses
from ssl_jax.detect.anchors import Convention, pyramid_anchors
from ssl_jax.detect.boxes import ROI_WEIGHTS, decode
from ssl_jax.detect.detections import Detections, select_detections
from ssl_jax.detect.losses import Terms, Truth
from ssl_jax.detect.proposals import Proposals, Rois, random_rois, select_proposals
from ssl_jax.detect.rules import FOREGROUND, LIMITS, RULES, Limits, Rules
from ssl_jax.models import Network, frozen_norms, network, resnet
from ssl_jax.models.box_heads import Boxes, BoxHead, MaskHead
from ssl_jax.models.detection_bodies import BODIES, Body, RoiOptions, merge
from ssl_jax.models.normalize import NORMALIZE, fill_padding
from ssl_jax.models.rpn import Anchored, RPNHead

Targets = dict[str, jax.Array]


class Predictions(NamedTuple):
  """What a detector reports; the leaves of `detections` have a leading axis B."""

  detections: Detections
  masks: jax.Array | None  # f32[B, N, P, P] in [0, 1] of each box, to be pasted by `detect.masks.paste_masks`
  further: Any = None  # what a `RoiHead` predicts of each box; its leaves are [B, N, ...]


class RoiHead(NamedTuple):
  """A further head on the maps of a detector, for what only some detectors predict.

  Its weights are a dict by names of its own, beside those of the detector.
  """

  init: Callable[..., Weights]  # (key, maps); only the shapes of the maps matter
  # (weights, maps, rois, truth, targets) -> losses: dict of f32[] by name. `rois` and `truth` have an axis B.
  loss: Callable[..., dict[str, jax.Array]]
  predict: Callable[..., Any]  # (weights, maps, boxes f32[B, N, 4]) -> leaves [B, N, ...]


class Detector(NamedTuple):
  """A detector as pure functions.

  Its parameters and state are dicts with the keys "encoder", "rpn", "box" and, where they exist, "fpn",
  "norm" and "mask". Those of "encoder" are a plain ResNet's.
  """

  init: Callable[[Key, jax.Array], Weights]  # (key, images); only the shape of the images matters
  # (weights, images, image_sizes, targets, key) -> (losses: dict of f32[] by name, model_state)
  train_loss: Callable[..., tuple[dict[str, jax.Array], Any]]
  predict: Callable[[Weights, jax.Array, jax.Array], Predictions]  # (weights, images, image_sizes)


class Parts(NamedTuple):
  """The networks and options of a detector."""

  body: Body
  nets: dict[str, Network]  # "rpn", "box" and, where there are masks, "mask"
  further: RoiHead | None
  classes: int
  rules: Rules
  limits: Limits
  ignore_crowds: bool
  background: tuple[float, float, float]  # the colour of padding


def detector(
  encoder: Network,
  classes: int,
  kind: Literal["c4", "fpn"] = "fpn",
  masks: bool = False,
  *,
  agnostic: bool = False,
  batch_norm: Literal["trained", "frozen"] = "trained",
  fpn_norm: bool = False,
  extra_norm: bool = True,
  ignore_crowds: bool = False,
  convention: Convention = "detectron2",
  channels: int = 256,
  hidden: int = 1024,
  samples: int = 2,
  anchor_scale: float = 1.0,
  limits: Limits | None = None,
  further: RoiHead | None = None,
) -> Detector:
  """Faster R-CNN, or Mask R-CNN with `masks`, on the maps of a ResNet.

  `train_loss` and `predict` take images f32[B, H, W, 3] in [0, 1], of which the upper left part of
  `image_sizes` i32[B, 2] (height, width) is not padding; the content of the padding does not matter.
  `targets` are a dict of "boxes" f32[B, G, 4] in pixels, "boxes_class" i32[B, G], "boxes_valid" bool[B, G],
  "boxes_crowd" bool[B, G] and, for masks, "masks" bool[B, G, h, w], which cover the padded image or, if it is
  given, the rectangles "mask_frames" f32[B, G, 4]. The total loss is the sum of the losses "objectness",
  "proposals", "classes", "boxes" and "masks", each normalised by a count over the whole batch.

  Args:
    encoder: a ResNet of four stages with the stem "imagenet" and no output_stride.
    classes: K, without the background.
    kind: "c4": an RPN on the third stage; the fourth stage is applied to RoIs of 14 x 14 pixels, as MoCo's
      VOC protocol has it. "fpn": a feature pyramid on all stages and two dense layers.
    masks: adds a mask head: of 28 x 28 pixels with "fpn", 14 x 14 with "c4".
    agnostic: one box for all classes of a RoI instead of one for each.
    batch_norm: of the encoder. "trained": statistics of the batch, or of the encoder's `batch_groups`, as
      MoCo fine-tunes; "frozen": running statistics, no gradient for scales and biases. An optimiser
      that decays weights must leave those out, as detectron2's does.
    fpn_norm: BatchNorm in the pyramid, which MoCo's COCO protocol has and detectron2's baseline has not.
    extra_norm: the BatchNorm after res5 that MoCo's C4 detectors have.
    ignore_crowds: background that lies in a crowd is left out of the losses (Detectron); by default crowds
      are no objects at all (detectron2).
    convention: whose rules on anchors, RoIAlign, box losses and smallest boxes hold: see `rules.RULES`.
    channels: of the pyramid and the mask head.
    hidden: width of the dense layers of "fpn".
    samples: of RoIAlign in a bin along each axis.
    anchor_scale: multiplies the sizes of the anchors, which are 32 to 512 pixels.
    limits: numbers of boxes; by default `rules.LIMITS[kind]`.
    further: a head whose losses and predictions are added.
  Raises: ValueError for an encoder that does not fit, or an option that is out of range.
  Source: Ren et al. 2015; Lin et al. 2017 (FPN); He et al. 2017 (Mask R-CNN); He et al. 2020, "Momentum
    Contrast", appendix.
  """
  _check(encoder, classes, kind, batch_norm, convention)
  module: Any = encoder.module
  rules, dtype = RULES[convention], jnp.dtype(module.dtype)
  trunk = frozen_norms(encoder) if batch_norm == "frozen" else encoder
  options = RoiOptions(channels, fpn_norm, extra_norm, samples, rules.aligned, anchor_scale)
  body = BODIES[kind](trunk, options)
  nets = {
    "rpn": network(RPNHead(body.grids[0].per_cell, dtype)),
    "box": network(BoxHead(classes, hidden if kind == "fpn" else 0, agnostic, dtype)),
  }
  if masks:
    nets["mask"] = network(MaskHead(classes, 4 if kind == "fpn" else 0, channels, dtype))
  background = NORMALIZE[module.normalize][0]
  parts = Parts(body, nets, further, classes, rules, limits or LIMITS[kind], ignore_crowds, background)
  bound = functools.partial
  return Detector(bound(_init, parts), bound(_train_loss, parts), bound(_predict, parts))


def _init(parts: Parts, key: Key, images: jax.Array) -> Weights:
  body_key, *keys = jax.random.split(key, 2 + len(parts.nets))
  weights = parts.body.init(body_key, images)
  maps = jax.eval_shape(functools.partial(parts.body.maps, train=False), weights, images)[0]
  rois = jax.ShapeDtypeStruct((images.shape[0], 1, 4), jnp.float32)
  crop = functools.partial(parts.body.box_maps, train=False)
  box = jax.eval_shape(crop, weights, maps, rois)[0]
  mask = jax.eval_shape(parts.body.mask_maps, weights, maps, rois)
  inputs = {"rpn": maps, "box": box, "mask": mask}
  for own, (name, net) in zip(keys, parts.nets.items()):
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs[name])
    weights = merge(weights, name, net.init(own, zeros))
  if parts.further is None:
    return weights
  own = parts.further.init(keys[-1], maps)
  return Weights({**weights.params, **own.params}, {**weights.model_state, **own.model_state})


def _train_loss(parts: Parts, weights: Weights, images, image_sizes, targets: Targets, key: Key):
  keys = jax.random.split(key, (images.shape[0], 2))
  truth = _truth(targets, parts.ignore_crowds)
  images = _on_canvas(parts, images, image_sizes)
  maps, weights = parts.body.maps(weights, images, train=True)
  found = _call(parts, weights, "rpn", maps, train=True)
  anchors = _anchors(parts, images)
  rpn = jax.vmap(functools.partial(_rpn_terms, parts, anchors))(keys[:, 0], found, truth)
  proposals = _proposals(parts, anchors, found, image_sizes, train=True)
  rois = jax.vmap(functools.partial(_draw, parts))(keys[:, 1], proposals, truth)
  features, weights = parts.body.box_maps(weights, maps, _repeated(rois), train=True)
  boxes = _by_image(_call(parts, weights, "box", features, train=True), rois.boxes)
  roi = jax.vmap(functools.partial(_roi_terms, parts))(boxes, rois, truth)
  # detectron2 divides by the size of the sample even where fewer anchors are drawn.
  anchors_count = parts.limits.anchors * images.shape[0]
  terms = {
    "objectness": rpn.labels.sum() / anchors_count,
    "proposals": rpn.boxes.sum() / anchors_count,
    "classes": _mean(roi.labels, roi.count),
    "boxes": _mean(roi.boxes, roi.count),
  }
  if "mask" in parts.nets:
    terms["masks"] = _mask_loss(parts, weights, maps, features, rois, truth, targets)
  if parts.further is not None:
    terms |= parts.further.loss(weights, maps, rois, truth, targets)
  return terms, weights.model_state


def _mask_loss(parts: Parts, weights: Weights, maps, features, rois: Rois, truth: Truth, targets: Targets):
  """f32[]: the mean over all pixels of the masks of foreground RoIs, which come first among the RoIs."""
  most = int(parts.limits.rois * FOREGROUND)
  crops = parts.body.mask_maps(weights, maps, rois.boxes[:, :most], features)
  logits = _by_image(_call(parts, weights, "mask", crops, train=True), rois.boxes)
  frames = targets.get("mask_frames")
  if frames is None:
    total, count = jax.vmap(losses.mask_loss)(logits, rois, truth, targets["masks"])
  else:
    total, count = jax.vmap(losses.mask_loss)(logits, rois, truth, targets["masks"], frames)
  return _mean(total, count)


def _predict(parts: Parts, weights: Weights, images, image_sizes) -> Predictions:
  images = _on_canvas(parts, images, image_sizes)
  maps, _ = parts.body.maps(weights, images, train=False)
  found = _call(parts, weights, "rpn", maps, train=False)
  proposals = _proposals(parts, _anchors(parts, images), found, image_sizes, train=False)
  features, _ = parts.body.box_maps(weights, maps, proposals.boxes, train=False)
  boxes = _by_image(_call(parts, weights, "box", features, train=False), proposals.boxes)
  detections = jax.vmap(functools.partial(_detections, parts))(boxes, proposals, image_sizes)
  further = parts.further and parts.further.predict(weights, maps, detections.boxes)
  if "mask" not in parts.nets:
    return Predictions(detections, None, further)
  crops = parts.body.mask_maps(weights, maps, detections.boxes)
  logits = _by_image(_call(parts, weights, "mask", crops, train=False), detections.boxes)
  own = jnp.take_along_axis(logits, detections.classes[:, :, None, None, None], axis=-1)[..., 0]
  shown = jnp.where(detections.valid[:, :, None, None], jax.nn.sigmoid(own), 0.0)
  return Predictions(detections, shown, further)


def _detections(parts: Parts, boxes: Boxes, proposals: Proposals, image_size) -> Detections:
  return select_detections(
    jax.nn.softmax(boxes.logits),
    decode(boxes.deltas, proposals.boxes[:, None], ROI_WEIGHTS),
    proposals.valid,
    image_size,
    least_score=parts.limits.least_score,
    least_side=parts.rules.least_box,
    count=parts.limits.detections,
    candidates=parts.limits.candidates,
  )


def _rpn_terms(parts: Parts, anchors: tuple[jax.Array, ...], key, found: Anchored, truth: Truth) -> Terms:
  logits, deltas, boxes = (jnp.concatenate(levels) for levels in (found.logits, found.deltas, anchors))
  options: dict[str, Any] = dict(count=parts.limits.anchors, beta=parts.rules.beta)
  return losses.rpn_loss(key, logits, deltas, boxes, truth, **options)


def _draw(parts: Parts, key, proposals: Proposals, truth: Truth) -> Rois:
  return random_rois(
    key,
    proposals.boxes,
    proposals.valid,
    truth.boxes,
    truth.valid,
    count=parts.limits.rois,
    foreground_fraction=FOREGROUND,
    crowds=truth.crowds,
  )


def _roi_terms(parts: Parts, boxes: Boxes, rois: Rois, truth: Truth) -> Terms:
  return losses.roi_loss(boxes.logits, boxes.deltas, rois, truth, beta=parts.rules.beta)


def _proposals(parts: Parts, anchors, found: Anchored, image_sizes, *, train: bool) -> Proposals:
  """`Proposals` of each image, with a leading axis B."""
  which = 0 if train else 1

  def of_image(found: Anchored, size: jax.Array) -> Proposals:
    return select_proposals(
      found.logits,
      found.deltas,
      anchors,
      size,
      before=parts.limits.before[which],
      count=parts.limits.proposals[which],
      least_side=parts.rules.least_proposal,
    )

  return jax.vmap(of_image)(found, image_sizes)


def _on_canvas(parts: Parts, images: jax.Array, image_sizes: jax.Array) -> jax.Array:
  """The images with one colour as their padding, which grows to a multiple of the body's (the references do
  so, and torchvision's anchors depend on it)."""
  bottom, right = (-side % parts.body.multiple for side in images.shape[1:3])
  grown = jnp.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0)))
  return fill_padding(grown, image_sizes, parts.background)


def _anchors(parts: Parts, images: jax.Array) -> tuple[jax.Array, ...]:
  height, width = images.shape[1:3]
  return pyramid_anchors(height, width, parts.body.grids, convention=parts.rules.anchors)


def _truth(targets: Targets, ignore_crowds: bool) -> Truth:
  valid, crowds = targets["boxes_valid"].astype(bool), targets["boxes_crowd"].astype(bool)
  if not ignore_crowds:
    valid, crowds = valid & ~crowds, jnp.zeros_like(crowds)
  return Truth(targets["boxes"], targets["boxes_class"], valid, crowds)


def _repeated(rois: Rois) -> jax.Array:
  """f32[B, S, 4]: the boxes with the valid ones repeated in place of the padding, which would otherwise enter
  the BatchNorm statistics of res5."""
  place, count = jnp.arange(rois.valid.shape[1])[None], rois.valid.sum(1, keepdims=True)
  return jnp.take_along_axis(rois.boxes, (place % jnp.maximum(count, 1))[..., None], axis=1)


def _call(parts: Parts, weights: Weights, name: str, inputs, *, train: bool):
  """The output of a network without state."""
  own = Weights(weights.params[name], weights.model_state[name])
  return parts.nets[name].apply(own, inputs, train=train)[0]


def _by_image(rows, like: jax.Array):
  """Leaves [B * S, ...] -> [B, S, ...]; `like` has the axis B."""
  return jax.tree.map(lambda leaf: leaf.reshape(like.shape[0], -1, *leaf.shape[1:]), rows)


def _mean(totals: jax.Array, counts: jax.Array) -> jax.Array:
  return totals.sum() / jnp.maximum(counts.sum(), 1.0)


def _check(encoder: Network, classes: int, kind: str, batch_norm: str, convention: str) -> None:
  for name, value, known in (
    ("kind", kind, BODIES),
    ("batch_norm", batch_norm, ("trained", "frozen")),
    ("convention", convention, RULES),
  ):
    if value not in known:
      raise ValueError(f"config.method.{name} is {value!r}{nearest(value, known)}")
  module: Any = encoder.module
  if not isinstance(module, resnet.ResNet):
    raise ValueError("method 'detection' needs the stages of a ResNet; use config.encoder.name='resnet50'")
  if len(module.depths) != 4 or module.stem != "imagenet" or module.output_stride:
    raise ValueError(
      "method 'detection' needs maps of strides 4, 8, 16 and 32, but config.encoder has "
      f"{len(module.depths)} stages, stem={module.stem!r} and output_stride={module.output_stride}; use four "
      "stages, stem='imagenet' and output_stride=0"
    )
  if classes < 1:
    raise ValueError(
      f"method 'detection' needs boxes of one class or more, but the data has {classes} classes"
    )
