"""Evaluates two real networks under 15 corruptions at 5 severities: table and heat maps of docs/results.md.

    python tests/benchmarks/robustness.py --data SHARED_DATA [--examples 2000] [--output FOLDER]

SHARED_DATA holds the folders `cifar10` and `weights` that tests/frozen.py reads. The last line is one JSON
object.
"""

import argparse
import json
import pathlib
import sys
import time

import jax
from side_by_side import machine

from ssl_jax import parallel, tasks
from ssl_jax.view.errors import plot_errors

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))
from tests import frozen  # noqa: E402


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--examples", type=int, default=2000)
  parser.add_argument("--output", type=pathlib.Path, default=None)
  args = parser.parse_args()
  images, labels = (part[: args.examples] for part in frozen.test_images(args.data))
  result = {"benchmark": "robustness", "examples": len(images), **machine()}
  for name in frozen.NAMES:
    began = time.perf_counter()
    found = tasks.make("robustness").run(
      frozen.backbone(args.data, name), frozen.data(images, labels), parallel.make_mesh(), jax.random.key(0)
    )
    result[name] = {
      "seconds": round(time.perf_counter() - began, 1),
      **{k: round(v, 4) for k, v in found.scalars.items()},
      "error": found.protocol["error"],
    }
    print(name, {k: v for k, v in result[name].items() if k != "error"}, flush=True)
    if args.output:
      args.output.mkdir(parents=True, exist_ok=True)
      plot_errors(
        args.output / f"robustness-{name}.png",
        {k: {int(s): e for s, e in row.items()} for k, row in found.protocol["error"].items()},
        title=f"{name}, CIFAR-10, {len(images)} test images: error, %",
      )
  print(json.dumps(result))


if __name__ == "__main__":
  main()
