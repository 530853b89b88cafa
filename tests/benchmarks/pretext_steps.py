"""Training steps of the pretext tasks against rotation's with as many backbone pixels, in one process.

    python tests/benchmarks/pretext_steps.py [--size 96] [--batch 32] [--rounds 5]

Every task cuts its pieces from images of one size, with the same ResNet-10 of width 16; rotation gets as many images as have the
same number of backbone pixels after their four turns. So a ratio of 1 is what the pixels explain: above it are cutting, heads and
losses (and small pieces, which fill convolutions less well). Images are already augmented. The last line is one JSON object.
"""

import argparse
import json

import numpy as np
from side_by_side import fastest, machine, train_step

from ssl_jax import models

SGD = dict(name="sgd", learning_rate=0.01, schedule="constant")


def tasks(size: int) -> dict:
  """Name -> (options of the method, options of the encoder, backbone pixels of one image)."""
  tile = size // 4
  cells = dict(tile=tile, gap=tile // 4, jitter=size - 3 * tile - 2 * (tile // 4))
  return {
      "context": (dict(width=256, coarse=0.33, colour="drop", **cells), {}, 9 * tile**2),
      "context_all_pairs": (dict(width=256, coarse=0.33, colour="drop", pairs="all", **cells), {}, 9 * tile**2),
      "jigsaw": (dict(permutations=100, width=64, **cells), {}, 9 * tile**2),
      "counting": (dict(counts=1000), {}, 5 * (size // 2) ** 2),
      "colorization": (dict(neighbours=10), dict(output_stride=8), size**2),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, default=96)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  images = np.random.default_rng(0).random((args.batch, args.size, args.size, 3), np.float32)
  found = {}
  for name, (options, encoding, pixels) in tasks(args.size).items():
    encoder = models.make("resnet10", width=16, stem="small", normalize="centred", **encoding)
    turned = args.batch * pixels / (4 * args.size**2)
    count = max(round(turned), 1)
    seconds = fastest({"task": train_step(name.partition("_")[0], encoder, {"image": images}, optimizer=SGD, **options)[0],
                       "rotation": train_step("rotation", encoder, {"image": images[:count]}, optimizer=SGD)[0]}, args.rounds)
    found[name] = {"seconds": round(seconds["task"], 4), "rotation_seconds": round(seconds["rotation"], 4),
                   "ratio": round(seconds["task"] / (seconds["rotation"] * turned / count), 3)}
    print(name, found[name], flush=True)
  print(json.dumps({"benchmark": "pretext_steps", "size": args.size, "batch": args.batch, **machine(), **found}))


if __name__ == "__main__":
  main()
