"""Measures a step of a policy at deployment, learning and acting: ours and the published form in PyTorch.

    python tests/benchmarks/policy_step.py [--networks published small] [--rounds 10]

Needs the extra `bench`. Both learn inverse dynamics on 32 random crops of one transition by one step of Adam
and then act; in float32, from frames of uint8 on the host to the action on the host. PyTorch runs eagerly and
computes every crop by itself. Rounds alternate between the two, and the fastest of each counts. The last line
is one JSON object; ratios above 1 mean that ours is faster.
"""

import argparse
import json

import jax
import numpy as np
import torch
from policy_torch import Policy, make_step
from side_by_side import fastest, machine

from ssl_jax import augment, methods, models, optim, parallel, ttt
from ssl_jax.abilities import Actor, Adaptable
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host
from ssl_jax.parallel import placement
from ssl_jax.tasks.deployment_episodes import Programs

COPIES, RATE, ACTIONS = 32, 1e-3, 1
NETWORKS = {
  "published": dict(depth=11, shared=8, channels=32, size=84, frame=100, hidden=1024),
  "small": dict(depth=5, shared=3, channels=16, size=64, frame=72, hidden=256),
}


def our_step(network: dict, clip: np.ndarray, action: np.ndarray):
  """() -> one step."""
  elements = host.make("transition", host.Frame(network["frame"]), actions=ACTIONS).elements
  encoder = models.make("pixel_encoder", depth=network["depth"], channels=network["channels"])
  method = methods.make(
    "policy",
    encoder,
    DataSpec(100, 0, 1, elements),
    branch=f"conv{network['shared']}",
    hidden=network["hidden"],
    size=network["size"],
  )
  crop = augment.make("transition_crop", views=1, size=network["size"])
  batch = {"clip": clip[None], "action": action[None], "expert_action": action[None]}
  params, state, _ = jax.jit(lambda key: method.init(key, crop(key, batch)))(jax.random.key(0))
  adam = optim.make_optimizer(
    total_steps=1, steps_per_epoch=1, batch_size=1, name="adamw", learning_rate=RATE, schedule="constant"
  )
  adaptable, mesh = method.abilities[Adaptable], parallel.make_mesh(jax.devices()[:1])
  adapt = ttt.make_adapt(adaptable, crop, adam.transform, steps=1000, copies=COPIES)
  episode = ttt.make_episode(adapt, adaptable, method.abilities[Actor])
  first = ttt.select_params(params, adaptable.trainable)
  weights = Weights(params, state)
  given = placement.replicate((weights, first, jax.random.key(1)), mesh)
  programs = Programs.compiled(episode, given, mesh, 1, ACTIONS)
  sample = {"clip": clip[None], "action": action[None]}
  held, number = programs.begin(*given, sample, np.zeros(1, np.int32))[0], 0

  def once() -> np.ndarray:
    nonlocal held, number
    held, response = programs.respond(given[0], held, sample, np.full(1, number, np.int32))
    number += 1
    return np.asarray(response.action)

  return once


def torch_step(network: dict, clip: np.ndarray, action: np.ndarray):
  """() -> one step."""
  torch.manual_seed(0)
  sizes = {name: value for name, value in network.items() if name != "frame"}
  step = make_step(Policy(**sizes, actions=ACTIONS), RATE, COPIES)
  channels = clip.transpose(0, 3, 1, 2)
  before, after = (np.concatenate(list(frames)) for frames in (channels[:-1], channels[1:]))
  return lambda: step(before, action, after)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
  parser.add_argument("--rounds", type=int, default=10)
  args = parser.parse_args()
  rng, found = np.random.default_rng(0), {}
  for name in args.networks:
    network = NETWORKS[name]
    clip = rng.integers(0, 256, (4, network["frame"], network["frame"], 3)).astype(np.uint8)
    action = np.full(ACTIONS, 0.3, np.float32)
    functions = {"ours": our_step(network, clip, action), "torch": torch_step(network, clip, action)}
    seconds = fastest(functions, args.rounds)
    ratio = seconds["torch"] / seconds["ours"]
    found[name] = {
      **{f"{who}_milliseconds": round(1000 * value, 2) for who, value in seconds.items()},
      "ratio": round(ratio, 2),
    }
    print(name, found[name])
  print(json.dumps({**found, "copies": COPIES, **machine("torch")}))


if __name__ == "__main__":
  main()
