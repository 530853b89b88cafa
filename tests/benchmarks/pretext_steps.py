"""Training steps of the pretext tasks against rotation's with as many backbone pixels, in one process.

    python tests/benchmarks/pretext_steps.py [--size 128] [--batch 32] [--rounds 5]

Every task cuts its pieces from images of one size, with the same ResNet-10 of width 16. Rotation gets as many pieces of that size:
images to turn as have the same number of backbone pixels. So a ratio of 1 is what the pixels explain; above it are cutting, heads
and losses. `ratio_large` is against rotation of uncut images with as many pixels: small pieces fill convolutions less well. Images
are already augmented. The last line is one JSON object.
"""

import argparse
import json

import numpy as np
from side_by_side import fastest, machine, train_step

from ssl_jax import models

SGD = dict(name="sgd", learning_rate=0.01, schedule="constant")


def tasks(size: int) -> dict:
  """Name -> (options of the method, options of the encoder, pieces of an image, their side)."""
  tile = size // 4
  cells = dict(tile=tile, gap=tile // 4, jitter=size - 3 * tile - 2 * (tile // 4))
  return {
    "context": (dict(width=256, coarse=0.33, colour="drop", **cells), {}, 9, tile),
    "context_all_pairs": (dict(width=256, coarse=0.33, colour="drop", pairs="all", **cells), {}, 9, tile),
    "jigsaw": (dict(permutations=100, width=64, **cells), {}, 9, tile),
    "counting": (dict(counts=1000), {}, 5, size // 2),
    "colorization": ({}, dict(output_stride=8), 1, size),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, default=128)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  images = np.random.default_rng(0).random((args.batch, args.size, args.size, 3), np.float32)
  found = {}
  for name, (options, encoding, pieces, side) in tasks(args.size).items():
    encoder = models.make("resnet10", width=16, stem="small", normalize="centred", **encoding)
    step = lambda method, images, **options: train_step(
      method, encoder, {"image": images}, optimizer=SGD, **options
    )[0]
    turned = args.batch * pieces / 4, args.batch * pieces * side**2 / (4 * args.size**2)
    small, large = (max(round(count), 1) for count in turned)
    seconds = fastest(
      {
        "task": step(name.partition("_")[0], images, **options),
        "small": step("rotation", np.resize(images, (small, side, side, 3))),
        "large": step("rotation", np.resize(images, (large, args.size, args.size, 3))),
      },
      args.rounds,
    )
    found[name] = {
      "seconds": round(seconds["task"], 4),
      "rotation_seconds": round(seconds["small"], 4),
      "ratio": round(seconds["task"] / (seconds["small"] * turned[0] / small), 3),
      "ratio_large": round(seconds["task"] / (seconds["large"] * turned[1] / large), 3),
    }
    print(name, found[name], flush=True)
  print(
    json.dumps({"benchmark": "pretext_steps", "size": args.size, "batch": args.batch, **machine(), **found})
  )


if __name__ == "__main__":
  main()
