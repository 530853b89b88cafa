"""From images to the maps of an RPN and to the features of RoIs: the two kinds of detectors, FPN and C4."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.core import Key, Weights
from ssl_jax.detect import anchors
from ssl_jax.detect.roi_align import assign_levels, pyramid_roi_align, roi_align
from ssl_jax.models import Network, network, split
from ssl_jax.models.box_heads import ExtraNorm
from ssl_jax.models.fpn import FPN

Maps = tuple[jax.Array, ...]


class RoiOptions(NamedTuple):
  """Options of both kinds; see `detection.detector`."""

  channels: int
  fpn_norm: bool
  extra_norm: bool
  samples: int
  aligned: bool
  anchor_scale: float = 1.0


class Body(NamedTuple):
  """A kind of detector up to its heads. What a function returns second are the weights with the new state."""

  grids: tuple[anchors.Grid, ...]  # of the maps
  init: Callable[[Key, jax.Array], Weights]
  maps: Callable[..., tuple[Maps, Weights]]  # (weights, images, *, train) -> maps [B, h, w, C] by level
  # (weights, maps, boxes f32[B, S, 4], *, train) -> features [B * S, P, P, C] of the box head
  box_maps: Callable[..., tuple[jax.Array, Weights]]
  # (weights, maps, boxes f32[B, F, 4], box_maps) -> features [B * F, P, P, C] of the mask head. In training
  # `box_maps` are given: those of S boxes of each image, of which the F are the first.
  mask_maps: Callable[..., jax.Array]
  multiple: int = 1  # pixels, of which the sides of the canvas are multiples


def merge(weights: Weights, name: str, part: Weights) -> Weights:
  """The weights with those of a part under its name."""
  return Weights({**weights.params, name: part.params}, {**weights.model_state, name: part.model_state})


def fpn(encoder: Network, options: RoiOptions) -> Body:
  """A feature pyramid on the four stages; RoIs of 7 x 7 pixels for boxes and 14 x 14 for masks."""
  module: Any = encoder.module
  net = network(FPN(options.channels, options.fpn_norm, module.batch_groups, jnp.dtype(module.dtype)))

  def stages(weights: Weights, images, *, train: bool):
    found, weights = _run(encoder, weights, "encoder", images, train=train, pyramid=True)
    return tuple(found[f"stage{i}"] for i in range(1, 5)), weights

  def init(key: Key, images) -> Weights:
    keys = jax.random.split(key)
    weights = merge(Weights({}, {}), "encoder", encoder.init(keys[0], images))
    shapes = jax.eval_shape(functools.partial(stages, train=False), weights, images)[0]
    zeros = tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes)
    return merge(weights, "fpn", net.init(keys[1], zeros))

  def maps(weights: Weights, images, *, train: bool):
    found, weights = stages(weights, images, train=train)
    return _run(net, weights, "fpn", found, train=train)

  def crop(pyramid: Maps, boxes: jax.Array, size: int) -> jax.Array:
    pool = functools.partial(
      pyramid_roi_align,
      strides=[grid.stride for grid in anchors.FPN[:4]],
      size=size,
      samples=options.samples,
      aligned=options.aligned,
    )
    found = jax.vmap(lambda levels, rows: pool(levels, rows, assign_levels(rows) - 2))(pyramid[:4], boxes)
    return found.reshape(-1, *found.shape[2:])

  def box_maps(weights: Weights, pyramid: Maps, boxes, *, train: bool):
    return crop(pyramid, boxes, 7), weights

  def mask_maps(weights: Weights, pyramid: Maps, boxes, box_maps=None):
    return crop(pyramid, boxes, 14)

  grids = anchors.scaled(anchors.FPN, options.anchor_scale)
  return Body(
    grids, init, maps, box_maps, mask_maps, multiple=32
  )  # so that every map is twice the coarser one


def c4(encoder: Network, options: RoiOptions) -> Body:
  """The third stage as the only map; the fourth stage on RoIs of 14 x 14 pixels gives 7 x 7, and the extra
  BatchNorm follows. Boxes and masks share them."""
  module: Any = encoder.module
  trunk, top = split(encoder, "stage3")
  norm = network(ExtraNorm(module.batch_groups))

  def init(key: Key, images) -> Weights:
    keys = jax.random.split(key)
    weights = merge(Weights({}, {}), "encoder", encoder.init(keys[0], images))
    if not options.extra_norm:
      return weights
    width = module.width * 8 * (4 if module.bottleneck else 1)
    return merge(weights, "norm", norm.init(keys[1], jnp.zeros((module.batch_groups, 7, 7, width))))

  def maps(weights: Weights, images, *, train: bool):
    found, weights = _run(trunk, weights, "encoder", images, train=train)
    return (found,), weights

  def box_maps(weights: Weights, pyramid: Maps, boxes, *, train: bool):
    pool = functools.partial(roi_align, stride=16, size=14, samples=options.samples, aligned=options.aligned)
    crops = jax.vmap(lambda level, rows: pool(level, rows))(pyramid[0], boxes)
    crops = crops.reshape(-1, *crops.shape[2:])
    found, weights = _run(top, weights, "encoder", crops, train=train, pyramid=True)
    if not options.extra_norm:
      return found["stage4"], weights
    return _run(norm, weights, "norm", found["stage4"], train=train)

  def mask_maps(weights: Weights, pyramid: Maps, boxes, found=None):
    if found is None:
      return box_maps(weights, pyramid, boxes, train=False)[0]
    batch, first = boxes.shape[:2]
    found = found.reshape(batch, -1, *found.shape[1:])[:, :first]
    return found.reshape(-1, *found.shape[2:])

  return Body(anchors.scaled(anchors.C4, options.anchor_scale), init, maps, box_maps, mask_maps)


BODIES: dict[str, Callable[[Network, RoiOptions], Body]] = {"c4": c4, "fpn": fpn}


def _run(net: Network, weights: Weights, name: str, inputs, *, train: bool, **call):
  """(The output of the network whose weights have this name, all weights with its new state)."""
  own = Weights(weights.params[name], weights.model_state[name])
  found, state = net.apply(own, inputs, train=train, **call)
  return found, merge(weights, name, own._replace(model_state=state))
