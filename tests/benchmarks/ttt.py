"""Measures standard test-time training of a ResNet-26 with 32 copies per step: ours and a plain PyTorch loop.

    python tests/benchmarks/ttt.py [--steps 1,10] [--samples 3] [--rounds 3] [--together 1]

Both run in one process. Ours: the CIFAR-10 network of configs/pretrain/joint.py, with crops, flips and
rotations drawn inside the step, SGD, and a prediction. PyTorch: the same network, eager, as in the released
code: for each image the weights are reset, each step augments and rotates 32 copies and takes one SGD step on
the trunk and the rotation branch; then follows a prediction. `cost_of_n` is the time of n samples divided by
n times the time of one. The last line is one JSON object.
"""

import argparse
import copy
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

COPIES, RATE = 32, 1e-3


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
      answer for _, answer in ttt.standard(program, *placed, images[:count], np.arange(count, dtype=np.int32))
    ]

  return run, program


def theirs(images: np.ndarray, steps: int, channels_last: bool):
  import torch
  from torch import nn
  from torch.nn import functional as F

  device = peers_device()

  class Block(nn.Module):
    def __init__(self, inputs, width, stride):
      super().__init__()
      self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, width)
      self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
      self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
      self.stride, self.more = stride, width - inputs

    def forward(self, x):
      y = self.conv1(F.relu(self.norm1(x)))
      if self.more:
        x = F.pad(F.avg_pool2d(x, self.stride), (0, 0, 0, 0, 0, self.more))
      return x + self.conv2(F.relu(self.norm2(y)))

  def stage(inputs, width, stride):
    return nn.Sequential(Block(inputs, width, stride), *(Block(width, width, 1) for _ in range(3)))

  class Branch(nn.Module):
    def __init__(self, classes):
      super().__init__()
      self.stage, self.norm, self.top = stage(32, 64, 2), nn.GroupNorm(8, 64), nn.Linear(64, classes)

    def forward(self, x):
      return self.top(F.relu(self.norm(self.stage(x))).mean((2, 3)))

  trunk = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), stage(16, 16, 1), stage(16, 32, 2))
  turns, classes = Branch(4), Branch(10)
  layout = torch.channels_last if channels_last else torch.contiguous_format
  for module in (trunk, turns, classes):
    module.to(memory_format=layout)
  start = copy.deepcopy(trunk.state_dict()), copy.deepcopy(turns.state_dict())
  pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
  draw = np.random.default_rng(0)

  def copies_of(image):
    padded, found, answers = F.pad(image, (4, 4, 4, 4), value=-1.0), [], draw.integers(0, 4, COPIES)
    for answer in answers:
      down, across = draw.integers(0, 9, 2)
      crop = padded[:, down : down + 32, across : across + 32]
      found.append(torch.rot90(crop.flip(2) if draw.random() < 0.5 else crop, int(answer), (1, 2)))
    return torch.stack(found).contiguous(memory_format=layout), torch.from_numpy(answers).to(device)

  def adapt(image):
    trunk.load_state_dict(start[0]), turns.load_state_dict(start[1])
    rule = torch.optim.SGD([*trunk.parameters(), *turns.parameters()], RATE)
    for _ in range(steps):
      views, answers = copies_of(image)
      rule.zero_grad()
      F.cross_entropy(turns(trunk(views)), answers).backward()
      rule.step()
    with torch.no_grad():
      return classes(trunk(image[None])).argmax().item()

  return lambda count: lambda: [adapt(image) for image in pixels[:count]]


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
      functions |= {
        "torch": theirs(images, steps, False)(count),
        "torch_channels_last": theirs(images, steps, True)(count),
      }
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
