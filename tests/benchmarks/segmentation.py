"""Measures segmentation: the training step against PyTorch's, and windows in batches against one by one.

    python tests/benchmarks/segmentation.py [--rounds 5] [--batch 8] [--crop 129] [--windows 129 65]

Training: an FCN on a ResNet-18 of width 32, output stride 16, in float32, forward and backward pass with the
loss at the resolution of the mask, and SGD with momentum; the crops are cut before the measurement. PyTorch
runs eagerly with channels-last tensors. Evaluation: windows of the same network over images of 180 x 240,
window after window and in batches, both by the programs of the task. Rounds alternate, and the fastest of
each counts. The extra `bench` gives the peer. The last line is one JSON object; ratios above 1 mean that
ours, or the batch, is faster.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import fastest, machine, peers_device

from ssl_jax import methods, models, optim, parallel
from ssl_jax.abilities import Segmenter
from ssl_jax.core import DataSpec, Weights, make_init, make_train_step
from ssl_jax.data import host
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.segmented_batches import Geometry, segmenting
from ssl_jax.tasks.sliding_windows import place_windows

WIDTH, CLASSES, RATE = 32, 11, 0.01


def make_method(crop: int, batch: int):
  encoder = models.make("resnet18", width=WIDTH, output_stride=16, dilate="all", normalize="none")
  data = DataSpec(1000, CLASSES, batch, host.image_mask(host.Frame(crop)).elements)
  return methods.make("segmentation", encoder, data)


def our_step(images: np.ndarray, masks: np.ndarray):
  """() -> loss of one more step."""
  rule = optim.make_optimizer(
    total_steps=1000, steps_per_epoch=100, batch_size=len(images), learning_rate=RATE, schedule="constant"
  )
  parts = (make_method(images.shape[1], len(images)), lambda key, batch: batch, rule.transform)
  batch = jax.device_put({"image": images, "mask": masks})
  state = jax.jit(make_init(*parts))(jax.random.key(0), batch)
  step = jax.jit(make_train_step(*parts), donate_argnums=0)

  def once() -> float:
    nonlocal state
    state, metrics = step(state, batch)
    return float(metrics["loss"].value())

  return once


def torch_step(images: np.ndarray, masks: np.ndarray):
  """() -> loss of one more step, of the same network in PyTorch."""
  import torch
  import torch.nn.functional as F
  from torch import nn

  device = peers_device()

  def conv(inner, outer, kernel, stride=1, dilation=1):
    padding = dilation * (kernel // 2)
    return [nn.Conv2d(inner, outer, kernel, stride, padding, dilation, bias=False), nn.BatchNorm2d(outer)]

  class Block(nn.Module):
    def __init__(self, inner, outer, stride, dilation):
      super().__init__()
      first = conv(inner, outer, 3, stride, dilation)
      self.main = nn.Sequential(*first, nn.ReLU(True), *conv(outer, outer, 3, 1, dilation))
      same = inner == outer and stride == 1
      self.shortcut = nn.Identity() if same else nn.Sequential(*conv(inner, outer, 1, stride))

    def forward(self, x):
      return F.relu(self.main(x) + self.shortcut(x), inplace=True)

  layers, inner = [*conv(3, WIDTH, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)], WIDTH
  for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (2, 1), (1, 2))):
    for block in range(2):
      layers.append(Block(inner, WIDTH * 2**stage, 1 if block else stride, dilation))
      inner = WIDTH * 2**stage
  for _ in range(2):
    layers += [*conv(inner, 256, 3, 1, 6), nn.ReLU(True)]
    inner = 256
  net = nn.Sequential(*layers, nn.Conv2d(inner, CLASSES, 1)).to(device, memory_format=torch.channels_last)
  rule = torch.optim.SGD(net.parameters(), RATE, momentum=0.9)
  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(device, memory_format=torch.channels_last)
  labels = torch.from_numpy(masks.astype(np.int64)).to(device)

  def once() -> float:
    rule.zero_grad(set_to_none=True)
    full = F.interpolate(net(pixels), size=labels.shape[1:], mode="bilinear", align_corners=True)
    loss = F.cross_entropy(full, labels, ignore_index=255)
    loss.backward()
    rule.step()
    return loss.item()

  return once


def window_functions(count: int, window: int, stride: int) -> dict:
  """{"one_by_one", "batched"}: () -> the predictions of `count` images; the network alone."""
  method, mesh = make_method(window, 1), parallel.make_mesh(jax.devices()[:1])
  views = {"image": jnp.zeros((1, window, window, 3)), "mask": jnp.zeros((1, window, window), jnp.uint8)}
  params, state, _ = jax.jit(method.init)(jax.random.key(0), views)
  draw, size = np.random.default_rng(0), (180, 240)
  rows = {
    "image": draw.integers(0, 256, (count, *size, 3), np.uint8),
    "image_size": np.tile(np.int32(size), (count, 1)),
    "mask": np.zeros((count, *size), np.uint8),
    "mask_size": np.tile(np.int32(size), (count, 1)),
    "index": np.arange(count, dtype=np.int32),
    "valid": np.ones(count, bool),
  }
  backbone, geometry = (
    Backbone(Weights(params, state), method),
    Geometry(place_windows(size, window, stride), size, size),
  )
  predict = jax.jit(method.abilities[Segmenter].predict)
  batches = {number: jnp.zeros((number, window, window, 3)) for number in (1, 8)}
  make = lambda together: segmenting(backbone, method.abilities[Segmenter], geometry, together, mesh)
  alone, batched = make(1), make(0)
  one = [{name: leaf[i : i + 1] for name, leaf in rows.items()} for i in range(count)]
  return {
    "one_by_one": lambda: [np.asarray(alone(row)[0]) for row in one],
    "batched": lambda: np.asarray(batched(rows)[0]),
    **{
      f"network_alone_{number}": lambda views=views: predict(params, state, views).block_until_ready()
      for number, views in batches.items()
    },
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--crop", type=int, default=129)
  parser.add_argument("--windows", type=int, nargs="+", default=[129, 65])
  args = parser.parse_args()
  draw = np.random.default_rng(0)
  images = draw.random((args.batch, args.crop, args.crop, 3), np.float32)
  masks = draw.integers(0, CLASSES, (args.batch, args.crop, args.crop)).astype(np.uint8)
  steps = {"ours": our_step(images, masks)}
  try:
    steps["torch"] = torch_step(images, masks)
  except ImportError:
    print("PyTorch is not installed (extra `bench`): ours alone", flush=True)
  seconds = fastest(steps, args.rounds)
  result = {"benchmark": "segmentation", "batch": args.batch, "crop": args.crop}
  result |= {f"{name}_step_s": round(value, 4) for name, value in seconds.items()}
  if "torch" in seconds:
    result["step_ratio"] = round(seconds["torch"] / seconds["ours"], 3)
  for window in args.windows:
    seconds = fastest(window_functions(4, window, 2 * window // 3), args.rounds)
    result[f"windows_of_{window}"] = {f"{name}_s": round(value, 4) for name, value in seconds.items()} | {
      "ratio": round(seconds["one_by_one"] / seconds["batched"], 3)
    }
  print(json.dumps(result | machine(*(["torch"] if "torch" in steps else []))))


if __name__ == "__main__":
  main()
