"""Measures the training steps of the pretext tasks, relative to rotation on equally many backbone pixels.

    python tests/benchmarks/pretext_steps.py [--size 128] [--batch 32] [--rounds 5]

All tasks cut their tiles from images of one size and use the same ResNet-10 of width 16. For `ratio`,
rotation gets images of the size of a tile, so many that the backbone sees the same number of pixels. A ratio
of 1 is what the number of pixels explains; what is above it is the cost of cutting, heads and losses.
`ratio_large` is relative to rotation of whole images with the same number of pixels: convolutions are less
efficient on small tiles. Images are augmented before the measurement. All runs share one process. The last
line is one JSON object.
"""

import argparse
import json

import numpy as np
from side_by_side import fastest, machine, train_step

from ssl_jax import models

SGD = dict(name="sgd", learning_rate=0.01, schedule="constant")


def tasks(size: int) -> dict:
  """Returns name -> (options of the method, options of the encoder, tiles per image, side of a tile)."""
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
    step = lambda method, images, encoder=encoder, **options: train_step(
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
