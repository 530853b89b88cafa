"""Learning at deployment in PyTorch, the peer of benchmarks. Nothing here imports JAX."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Policy(nn.Module):
  """A policy and inverse dynamics on shared convolutions."""

  def __init__(self, *, depth: int, shared: int, channels: int, size: int, hidden: int, actions: int):
    super().__init__()
    convolution = lambda number: nn.Conv2d(channels if number else 9, channels, 3, 1 if number else 2)
    self.trunk = nn.ModuleList(convolution(number) for number in range(shared))
    self.rests = nn.ModuleList(
      nn.ModuleList(convolution(number) for number in range(shared, depth)) for _ in range(2)
    )
    width = channels * ((size - 3) // 2 + 1 - 2 * (depth - 1)) ** 2
    self.tops = nn.ModuleList(
      nn.Sequential(nn.Linear(width, 100), nn.LayerNorm(100), nn.Tanh()) for _ in range(2)
    )
    mlp = lambda inputs: nn.Sequential(
      nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, actions)
    )
    self.actor, self.inverse, self.size = mlp(100), mlp(200), size

  def features(self, views: torch.Tensor, branch: int) -> torch.Tensor:
    """f32[B, 100] of crops f32[B, 9, S, S] in [0, 255]; branch 0 is the policy, 1 the task."""
    x = views / 255
    for layer in (*self.trunk, *self.rests[branch]):
      x = F.relu(layer(x))
    return self.tops[branch](x.flatten(1))

  def act(self, observation: np.ndarray) -> np.ndarray:
    """The action for the centre of an observation uint8[9, H, W]."""
    start = (observation.shape[-1] - self.size) // 2
    crop = observation[None, :, start : start + self.size, start : start + self.size]
    with torch.no_grad():
      return torch.tanh(self.actor(self.features(torch.from_numpy(crop).float(), 0)))[0].numpy()


def random_crops(observations: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
  """A random window of each of uint8[N, 9, H, W]."""
  room = observations.shape[-1] - size
  corners = draw.integers(0, max(room, 1), (len(observations), 2))
  return np.stack([o[:, y : y + size, x : x + size] for o, (y, x) in zip(observations, corners)])


def make_step(policy: Policy, rate: float, copies: int):
  """(observation before, action, observation after) -> the next action, after one step of Adam on `copies`
  copies, each cropped independently: the published form.
  """
  learned = [*policy.trunk.parameters(), *policy.rests[1].parameters(), *policy.tops[1].parameters()]
  rule = torch.optim.Adam([*learned, *policy.inverse.parameters()], rate)
  draw = np.random.default_rng(0)

  def step(before: np.ndarray, action: np.ndarray, after: np.ndarray) -> np.ndarray:
    crops = [
      torch.from_numpy(random_crops(np.repeat(o[None], copies, 0), policy.size, draw)).float()
      for o in (before, after)
    ]
    guessed = policy.inverse(torch.cat([policy.features(views, 1) for views in crops], 1))
    loss = F.mse_loss(guessed, torch.from_numpy(action).expand(copies, -1))
    rule.zero_grad()
    loss.backward()
    rule.step()
    return policy.act(after)

  return step
