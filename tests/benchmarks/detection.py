"""Measures the training step of Faster R-CNN with a feature pyramid against torchvision's, side by side.

    python tests/benchmarks/detection.py [--encoder resnet18] [--size 320] [--batch 2] [--rounds 5]

Both have the same backbone with BatchNorm of the batch, image size, objects, proposals and samples, train
all layers in float32, and update by SGD with momentum; torchvision runs eagerly with channels-last tensors.
Our networks are also measured alone: the ResNet, the ResNet with its pyramid, and these with the RPN's head
and the box head on features that are given, with the update. What the step takes beyond all networks are the
detector's own parts: anchors, matching, sampling, decoding, suppression, RoIAlign and losses, each with
static shapes. Rounds alternate, and the fastest of each counts. The extras `bench` and `import` give the
peer. The last line is one JSON object; a ratio above 1 means that ours is faster.
"""

import argparse
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from side_by_side import fastest, machine, peers_device

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.detect.rules import LIMITS
from ssl_jax.models import network
from ssl_jax.models.box_heads import BoxHead
from ssl_jax.models.detection import Detector, detector
from ssl_jax.models.detection_bodies import BODIES, RoiOptions
from ssl_jax.models.rpn import RPNHead

CLASSES, OBJECTS, ROWS, RATE = 20, 8, 64, 0.001
RULE = optax.sgd(RATE, momentum=0.9)


def make_batch(count: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(Images f32[B, side, side, 3] of noise with bright rectangles, their boxes f32[B, N, 4], labels)."""
  draw = np.random.default_rng(0)
  images = draw.uniform(0, 0.5, (count, side, side, 3)).astype(np.float32)
  corners = draw.uniform(0, 0.7, (count, OBJECTS, 2))
  boxes = np.concatenate([corners, corners + draw.uniform(0.1, 0.3, corners.shape)], -1) * side
  labels = draw.integers(0, CLASSES, (count, OBJECTS))
  for image, rows in zip(images, boxes.astype(int)):
    for x1, y1, x2, y2 in rows:
      image[y1:y2, x1:x2] += draw.uniform(0, 0.5, 3)
  return images, boxes.astype(np.float32), labels


def targets_of(boxes: np.ndarray, labels: np.ndarray) -> dict:
  """The objects of the images, padded to ROWS."""
  padded = lambda rows: np.pad(rows, [(0, 0), (0, ROWS - OBJECTS)] + [(0, 0)] * (rows.ndim - 2))
  return {
    "boxes": padded(boxes),
    "boxes_class": padded(labels.astype(np.int32)),
    "boxes_valid": padded(np.ones(labels.shape, bool)),
    "boxes_crowd": np.zeros((len(boxes), ROWS), bool),
  }


def our_step(net: Detector, weights: Weights, images, boxes, labels):
  """() -> loss of one more step."""
  batch = jax.device_put((images, np.tile(np.int32(images.shape[1:3]), (len(images), 1))))
  targets = jax.device_put(targets_of(boxes, labels))

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(weights: Weights, optimizer, key):
    def loss(params):
      terms, state = net.train_loss(Weights(params, weights.model_state), *batch, targets, key)
      return sum(terms.values()), state

    (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(weights.params)
    updates, optimizer = RULE.update(gradient, optimizer)
    return Weights(optax.apply_updates(weights.params, updates), state), optimizer, value

  state, number = (jax.tree.map(jnp.copy, weights), RULE.init(weights.params)), 0

  def once() -> float:
    nonlocal state, number
    *state, value = step(*state, jax.random.key(number))
    number += 1
    return float(value)

  return once


def our_networks(encoder, weights: Weights, images: np.ndarray) -> dict:
  """{name: () -> forward and backward pass of networks alone}; each includes those before it, and the last
  the update."""
  body = BODIES["fpn"](encoder, RoiOptions(256, False, False, 2, False))
  rpn, box = network(RPNHead(3)), network(BoxHead(CLASSES))
  own = lambda params, name: Weights(params[name], weights.model_state[name])
  mean = lambda tree: sum(leaf.mean() for leaf in jax.tree.leaves(tree))

  def resnet(params, crops, images):
    return mean(encoder.apply(own(params, "encoder"), images, train=True, pyramid=True)[0])

  def pyramid(params, crops, images):
    return mean(body.maps(Weights(params, weights.model_state), images, train=True)[0])

  def networks(params, crops, images):
    maps, _ = body.maps(Weights(params, weights.model_state), images, train=True)
    boxes = box.apply(own(params, "box"), crops, train=True)[0]
    return mean(rpn.apply(own(params, "rpn"), maps, train=True)[0]) + mean(boxes)

  def updated(params, momentum, crops, images):
    gradient, of_crops = jax.grad(networks, argnums=(0, 1))(params, crops, images)
    updates, momentum = RULE.update(gradient, momentum)
    return optax.apply_updates(params, updates), momentum, of_crops

  crops = jnp.ones((len(images) * LIMITS["fpn"].rois, 7, 7, 256))
  images = jax.device_put(images)
  passes = {f.__name__: jax.jit(jax.grad(f, argnums=(0, 1))) for f in (resnet, pyramid)}
  state, step = (weights.params, RULE.init(weights.params)), jax.jit(updated, donate_argnums=(0, 1))
  state = jax.tree.map(jnp.copy, state)

  def call(program):
    jax.block_until_ready(program(weights.params, crops, images))

  def once():
    nonlocal state
    *state, of_crops = jax.block_until_ready(step(*state, crops, images))

  return {name: functools.partial(call, program) for name, program in passes.items()} | {"networks": once}


def torch_step(encoder: str, images: np.ndarray, boxes: np.ndarray, labels: np.ndarray):
  """() -> loss of one more step of torchvision's detector."""
  import torch
  from torchvision.models.detection import FasterRCNN
  from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

  device, limits = peers_device(), LIMITS["fpn"]
  norm = torch.nn.BatchNorm2d
  backbone = resnet_fpn_backbone(backbone_name=encoder, weights=None, norm_layer=norm, trainable_layers=5)
  net = FasterRCNN(
    backbone,
    CLASSES + 1,
    min_size=images.shape[1],
    max_size=images.shape[1],
    rpn_pre_nms_top_n_train=limits.before[0],
    rpn_post_nms_top_n_train=limits.proposals[0],
    rpn_batch_size_per_image=limits.anchors,
    box_batch_size_per_image=limits.rois,
  )
  net = net.to(device, memory_format=torch.channels_last).train()
  rule = torch.optim.SGD(net.parameters(), RATE, momentum=0.9)
  pixels = [torch.from_numpy(image.transpose(2, 0, 1).copy()).to(device) for image in images]
  targets = [
    {"boxes": torch.from_numpy(rows).to(device), "labels": torch.from_numpy(own + 1).to(device)}
    for rows, own in zip(boxes, labels)
  ]

  def once() -> float:
    rule.zero_grad(set_to_none=True)
    loss = sum(net(pixels, targets).values())
    loss.backward()
    rule.step()
    return loss.item()

  return once


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--encoder", default="resnet18")
  parser.add_argument("--size", type=int, default=320)
  parser.add_argument("--batch", type=int, default=2)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  images, boxes, labels = make_batch(args.batch, args.size)
  encoder = models.make(args.encoder)
  net = detector(encoder, CLASSES, "fpn", convention="torchvision")
  weights = jax.jit(net.init)(jax.random.key(0), images)
  functions = {"ours": our_step(net, weights, images, boxes, labels)}
  functions |= our_networks(encoder, weights, images)
  try:
    functions["torch"] = torch_step(args.encoder, images, boxes, labels)
  except ImportError:
    print("PyTorch or torchvision is not installed (extras `bench`, `import`): ours alone", flush=True)
  seconds = fastest(functions, args.rounds)
  result = {"benchmark": "detection", **vars(args)}
  result |= {f"{name}_s": round(value, 4) for name, value in seconds.items()}
  beyond = seconds["ours"] - seconds["networks"]
  result |= {
    f"own_parts_of_{name}": round(beyond / seconds[name], 3) for name in ("resnet", "pyramid", "networks")
  }
  if "torch" in seconds:
    result["step_ratio"] = round(seconds["torch"] / seconds["ours"], 3)
  print(json.dumps(result | machine(*(["torch", "torchvision"] if "torch" in seconds else []))))


if __name__ == "__main__":
  main()
