"""Measures the MoCo v2 step of a ResNet-18 at 32 px: ours and the same step in PyTorch, on the same device.

    python tests/benchmarks/moco_step.py [--widths 16 64] [--batch 128] [--rounds 5]

Needs the extra `bench`. Both compute the same step: forward and backward pass of the query, forward pass of
the key, InfoNCE with a queue of 4,096, SGD with momentum and weight decay, moving average, enqueue; in
float32, with BatchNorm over the whole batch, views augmented before the measurement, and the stride-1 stem.
PyTorch runs eagerly with channels-last tensors. Rounds alternate between the two, and the fastest of each
counts. The last line is one JSON object; ratios above 1 mean that ours is faster.
"""

import argparse
import json

import numpy as np
import torch
from moco_torch import DECAY, DIM, LEARNING_RATE, Moco, small_resnet
from side_by_side import fastest, machine, peers_device, train_step

from ssl_jax import models

QUEUE, MOMENTUM, TEMPERATURE = 4096, 0.99, 0.2


def torch_step(width: int, views: np.ndarray):
  """() -> one step."""
  device = peers_device()
  moco = Moco(small_resnet(width), queue=QUEUE, momentum=MOMENTUM, temperature=TEMPERATURE)
  first, second = (
    torch.from_numpy(np.ascontiguousarray(views[:, i].transpose(0, 3, 1, 2))).to(
      device, memory_format=torch.channels_last
    )
    for i in range(2)
  )
  return lambda: moco.step(first, second).item()


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
