"""Measures standard test-time training of a ResNet-26 with 32 copies per step: ours and a plain PyTorch loop.

    python tests/benchmarks/ttt.py [--steps 1,10] [--samples 3] [--rounds 3] [--together 1]

Both run in one process. Ours: the CIFAR-10 network of configs/pretrain/joint.py, with crops, flips and
rotations drawn inside the step, SGD, and a prediction. PyTorch: the same network, eager, as in the released
code: for each image the weights are reset, each step augments and rotates 32 copies and takes one SGD step on
the trunk and the rotation branch; then follows a prediction. `torch_ttt_engine` is the package torch-ttt,
with as many rows in a step. `cost_of_n` is the time of n samples divided by n times that of one. The last
line is one JSON object.
"""

import argparse
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from side_by_side import fastest, machine, peers_device

from ssl_jax import augment, methods, models, parallel, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.core import DataSpec, Weights
from ssl_jax.parallel import placement

COPIES, RATE = 32, 1e-3  # as in ttt_torch.py


def ours(images: np.ndarray, steps: int, together: int):
  method = methods.make("joint", models.make("preresnet26"), DataSpec(50_000, 10, 128))
  params, model_state, _ = jax.jit(method.init)(jax.random.key(0), {"image": jnp.zeros((2, 32, 32, 3))})
  learn = ttt.make_adapt(
    method.abilities[Adaptable],
    augment.make("padded_crop", views=1),
    optax.sgd(RATE),
    steps=steps,
    copies=COPIES,
  )
  mesh = parallel.make_mesh()
  program = ttt.compile_adapt(learn, mesh, together=together, carried=False)
  weights = Weights(params, model_state)
  placed = placement.replicate(
    (weights, ttt.select_params(params, method.abilities[Adaptable].trainable), jax.random.key(1)), mesh
  )

  def run(count: int):
    return lambda: [
      answer
      for _, answer in ttt.standard(
        program, *placed, {"image": images[:count]}, np.arange(count, dtype=np.int32)
      )
    ]

  return run, program


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--steps", default="1,10")
  parser.add_argument("--samples", type=int, default=3)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--together", type=int, default=1)
  args = parser.parse_args()
  count = args.samples * args.together * jax.device_count()
  images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
  found = {}
  for steps in map(int, args.steps.split(",")):
    run, program = ours(images, steps, args.together)
    functions = {"one": run(program.size), "ours": run(count)}
    try:
      from ttt_torch import one_after_another, with_the_engine

      device = peers_device()
      functions |= {
        "torch": one_after_another(images, steps, device, channels_last=False)(count),
        "torch_channels_last": one_after_another(images, steps, device, channels_last=True)(count),
      }
      if importlib.util.find_spec("torch_ttt"):
        functions["torch_ttt_engine"] = with_the_engine(images, steps, device)(count)
    except ImportError:
      print("PyTorch is not installed (extra `bench`): ours alone", flush=True)
    seconds = fastest(functions, args.rounds)
    found[f"steps_{steps}"] = row = {
      **{f"{name}_samples_a_second": round(count / seconds[name], 3) for name in functions if name != "one"},
      **{
        f"times_{name}": round(seconds[name] / seconds["ours"], 2)
        for name in functions
        if name.startswith("torch")
      },
      "cost_of_n": round(seconds["ours"] / (count / program.size * seconds["one"]), 3),
      "megabytes": round(program.memory() / 2**20, 1),
    }
    print(steps, row, flush=True)
  packages = ("torch",) if any("times_torch" in row for row in found.values()) else ()
  print(
    json.dumps(
      {
        "benchmark": "ttt",
        "copies": COPIES,
        "samples": count,
        "together": args.together,
        **machine("optax", *packages),
        **found,
      }
    )
  )


if __name__ == "__main__":
  main()
