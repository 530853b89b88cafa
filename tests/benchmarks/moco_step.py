"""Measures the MoCo v2 step of a ResNet-18 at 32 px: ours and the same step in PyTorch, on the same device.

    python tests/benchmarks/moco_step.py [--widths 16 64] [--batch 128] [--rounds 5]

Needs the extra `bench`. Both compute the same step: forward and backward pass of the query, forward pass of
the key, InfoNCE with a queue of 4,096, SGD with momentum and weight decay, moving average, enqueue; in
float32, with BatchNorm over the whole batch, views augmented before the measurement, and the stride-1 stem.
PyTorch runs eagerly with channels-last tensors. Rounds alternate between the two, and the fastest of each
counts. The last line is one JSON object; ratios above 1 mean that ours is faster.
"""

import argparse
import copy
import json

import numpy as np
import torch
import torch.nn.functional as F
from side_by_side import fastest, machine, peers_device, train_step
from torch import nn

from ssl_jax import models

QUEUE, DIM, MOMENTUM, TEMPERATURE = 4096, 128, 0.99, 0.2
LEARNING_RATE, DECAY = 0.03, 1e-4


class TorchBlock(nn.Module):
  def __init__(self, inner: int, outer: int, stride: int):
    super().__init__()
    self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
    self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
    self.shortcut = (
      nn.Identity()
      if inner == outer
      else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
    )

  def forward(self, x):
    y = F.relu(self.norm1(self.conv1(x)), inplace=True)
    return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class TorchMoco:
  """The PyTorch side: one object that holds all state, as is usual there."""

  def __init__(self, width: int):
    layers, inner = (
      [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)],
      width,
    )
    for stage in range(4):
      for block in range(2):
        outer = width * 2**stage
        layers.append(TorchBlock(inner, outer, 2 if stage and not block else 1))
        inner = outer
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, DIM)]
    self.query = nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)
    self.key = copy.deepcopy(self.query).requires_grad_(False)
    self.queue, self.cursor = F.normalize(torch.randn(QUEUE, DIM), dim=1), 0
    self.sgd = torch.optim.SGD(self.query.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=DECAY)

  def step(self, first: torch.Tensor, second: torch.Tensor) -> float:
    queries = F.normalize(self.query(first), dim=1)
    with torch.no_grad():
      for key, query in zip(self.key.parameters(), self.query.parameters()):
        key.mul_(MOMENTUM).add_(query, alpha=1 - MOMENTUM)
      keys = F.normalize(self.key(second), dim=1)
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ self.queue.T], 1) / TEMPERATURE
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
    self.sgd.zero_grad(set_to_none=True)
    loss.backward()
    self.sgd.step()
    self.queue[self.cursor : self.cursor + len(keys)] = keys
    self.cursor = (self.cursor + len(keys)) % QUEUE
    return loss.item()


def torch_step(width: int, views: np.ndarray):
  """() -> one step."""
  device = peers_device()
  moco = TorchMoco(width)
  first, second = (
    torch.from_numpy(np.ascontiguousarray(views[:, i].transpose(0, 3, 1, 2))).to(
      device, memory_format=torch.channels_last
    )
    for i in range(2)
  )
  return lambda: moco.step(first, second)


def our_step(width: int, views: np.ndarray):
  """() -> one step."""
  sgd = dict(learning_rate=LEARNING_RATE, weight_decay=DECAY, schedule="constant")
  return train_step(
    "moco",
    models.make("resnet18", width=width, stem="cifar", normalize="none"),
    {"views": views},
    optimizer=sgd,
    dim=DIM,
    mlp=True,
    queue_size=QUEUE,
    momentum=MOMENTUM,
    temperature=TEMPERATURE,
    shuffle=False,
  )[0]


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
  parser.add_argument("--batch", type=int, default=128)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  views = np.random.default_rng(0).random((args.batch, 2, 32, 32, 3), np.float32)
  result = {
    "benchmark": "moco_step",
    "batch": args.batch,
    "threads": torch.get_num_threads(),
    **machine("torch"),
  }
  for width in args.widths:
    steps = {"ours": our_step(width, views), "torch": torch_step(width, views)}
    best = fastest(steps, args.rounds)
    result[f"width{width}"] = {
      f"{name}_images_per_second": round(args.batch / s, 1) for name, s in best.items()
    } | {"ratio": round(best["torch"] / best["ours"], 3)}
    print(f"width {width}: ours {best['ours']:.3f} s, PyTorch {best['torch']:.3f} s", flush=True)
  print(json.dumps(result))


if __name__ == "__main__":
  main()
