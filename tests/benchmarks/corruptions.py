"""Measures corruptions of 224-pixel photographs, ours and those of imagecorruptions, and their cost in use.

    python tests/benchmarks/corruptions.py [--images 8] [--rounds 3]

Needs the extras `test` and `parity`. Each of the fifteen corruptions is applied at severity 3 to the same
photographs: ours as in an evaluation (one jitted program over the batch), theirs image by image. Both run in
turn in one process, and the fastest of the rounds counts. Then a ResNet-18 encodes the batch, clean and
corrupted. The last line is one JSON object: milliseconds per image, ratios (above 1 ours is faster), and the
throughput of a corrupted evaluation divided by that of a clean one.
"""

import argparse
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from side_by_side import fastest, machine

from ssl_jax import corrupt, models
from ssl_jax.augment.compose import for_each

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "corrupt"))
import reference  # noqa: E402

SEVERITY = 3


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--images", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  package = reference.imagecorruptions()
  photographs = (reference.photographs() * args.images)[: args.images]
  batch = jnp.asarray(np.stack(photographs), jnp.float32) / 255
  keys = jax.random.split(jax.random.key(0), args.images)
  encoder = models.make("resnet18")
  weights = jax.jit(encoder.init)(jax.random.key(0), batch)
  clean = jax.jit(lambda images: encoder.apply(weights, images)[0])
  found, total = {}, {"ours": 0.0, "theirs": 0.0}
  for name in corrupt.CORRUPTIONS:
    function = corrupt.make(name)
    alone = jax.jit(
      lambda keys, images, f=function: for_each(lambda key, image: f(key, image, SEVERITY), keys, images)
    )
    inside = jax.jit(
      lambda keys, images, f=function: encoder.apply(
        weights, for_each(lambda key, image: f(key, image, SEVERITY), keys, images)
      )[0]
    )
    seconds = fastest(
      {
        "ours": lambda alone=alone: jax.block_until_ready(alone(keys, batch)),
        "theirs": lambda name=name: [
          reference.theirs(package, name, image, SEVERITY) for image in photographs
        ],
        "clean": lambda: jax.block_until_ready(clean(batch)),
        "corrupted": lambda inside=inside: jax.block_until_ready(inside(keys, batch)),
      },
      args.rounds,
    )
    found[name] = {
      "ours_ms": round(1e3 * seconds["ours"] / args.images, 2),
      "theirs_ms": round(1e3 * seconds["theirs"] / args.images, 2),
      "ratio": round(seconds["theirs"] / seconds["ours"], 1),
      "evaluation": round(seconds["clean"] / seconds["corrupted"], 2),
    }
    total = {side: total[side] + seconds[side] for side in total}
    print(name, found[name], flush=True)
  shares = sorted((row["evaluation"] for row in found.values()), reverse=True)
  print(
    json.dumps(
      {
        "benchmark": "corruptions",
        "images": args.images,
        **machine("imagecorruptions"),
        **found,
        "ratio_over_all": round(total["theirs"] / total["ours"], 1),
        "evaluation_of_the_ten_cheapest": shares[:10],
      }
    )
  )


if __name__ == "__main__":
  main()
