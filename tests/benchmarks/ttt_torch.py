"""Standard test-time training in PyTorch, the peer that benchmarks measure beside ours. Nothing here imports
JAX.
"""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

COPIES, RATE = 32, 1e-3


class Block(nn.Module):
  """A block of the ResNet-26 with GroupNorm, before the convolutions."""

  def __init__(self, inputs: int, width: int, stride: int):
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


def stage(inputs: int, width: int, stride: int) -> nn.Sequential:
  """Four blocks."""
  return nn.Sequential(Block(inputs, width, stride), *(Block(width, width, 1) for _ in range(3)))


class Branch(nn.Module):
  """The last stage and a linear layer."""

  def __init__(self, classes: int):
    super().__init__()
    self.stage, self.norm, self.top = stage(32, 64, 2), nn.GroupNorm(8, 64), nn.Linear(64, classes)

  def forward(self, x):
    return self.top(F.relu(self.norm(self.stage(x))).mean((2, 3)))


def networks() -> tuple[nn.Module, nn.Module, nn.Module]:
  """(the trunk, the branch for rotations, the branch for classes)."""
  trunk = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), stage(16, 16, 1), stage(16, 32, 2))
  return trunk, Branch(4), Branch(10)


def pixels_of(images: np.ndarray, device: torch.device) -> torch.Tensor:
  """f32[N, 3, H, W] in [-1, 1] from uint8[N, H, W, 3]."""
  return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def one_after_another(images: np.ndarray, steps: int, device: torch.device, *, channels_last: bool):
  """Returns count -> () -> the predictions of so many images. For each image the weights are reset, as in the
  released code.
  """
  trunk, turns, classes = networks()
  layout = torch.channels_last if channels_last else torch.contiguous_format
  for module in (trunk, turns, classes):
    module.to(device, memory_format=layout)
  start = copy.deepcopy(trunk.state_dict()), copy.deepcopy(turns.state_dict())
  pixels, draw = pixels_of(images, device), np.random.default_rng(0)

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


def with_the_engine(images: np.ndarray, steps: int, device: torch.device):
  """Returns count -> () -> the predictions of so many images, by the engine of the package torch-ttt: each
  time it copies the network and shows COPIES / 4 crops of the image in all four rotations.
  """
  from torch_ttt.engine.ttt_engine import TTTEngine

  trunk, turns, classes = (module.to(device) for module in networks())
  rule = {"optimizer_name": "adam", "lr": RATE, "num_steps": steps, "copy_model": True}
  engine = TTTEngine(nn.Sequential(trunk, classes), "0", turns, optimization_parameters=rule).eval()
  pixels = pixels_of(images, device)

  def answer(image):
    return engine(copies_together(image[None])[0][0, : COPIES // 4])[0].mean(0).argmax().item()

  return lambda count: lambda: [answer(image) for image in pixels[:count]]


def together(images: np.ndarray, steps: int, device: torch.device, size: int):
  """Returns count -> () -> the same predictions, `size` images at once by torch.func.vmap."""
  trunk, turns, classes = (module.to(device) for module in networks())
  learner, predictor = nn.Sequential(trunk, turns), nn.Sequential(trunk, classes)
  start = {name: leaf.detach() for name, leaf in learner.named_parameters()}
  fixed = {name: leaf.detach() for name, leaf in predictor.named_parameters() if name.startswith("1.")}
  pixels = pixels_of(images, device)

  def loss(params, views, answers):
    return F.cross_entropy(torch.func.functional_call(learner, params, (views,)), answers)

  def answer(params, image):
    moved = {name: leaf for name, leaf in params.items() if name.startswith("0.")}
    return torch.func.functional_call(predictor, {**moved, **fixed}, (image[None],))[0].argmax()

  gradients, predict = torch.func.vmap(torch.func.grad(loss)), torch.func.vmap(answer)

  def adapt(chunk):
    params = {name: leaf[None].repeat(len(chunk), *[1] * leaf.ndim) for name, leaf in start.items()}
    for _ in range(steps):
      views, answers = copies_together(chunk)
      found = gradients(params, views, answers)
      params = {name: leaf - RATE * found[name] for name, leaf in params.items()}
    with torch.no_grad():
      return predict(params, chunk).tolist()

  return lambda count: lambda: [label for chunk in pixels[:count].split(size) for label in adapt(chunk)]


def copies_together(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns (random crops, flips and rotations of each image [N, COPIES, 3, 32, 32], the rotations)."""
  count, device = len(images), images.device
  draw = lambda most: torch.randint(0, most, (count, COPIES), device=device)
  padded, along = F.pad(images, (4, 4, 4, 4), value=-1.0), torch.arange(32, device=device)
  across = torch.where(draw(2)[..., None] == 1, along.flip(0), along) + draw(9)[..., None]
  down, image = along + draw(9)[..., None], torch.arange(count, device=device)
  crops = padded.permute(0, 2, 3, 1)[
    image[:, None, None, None], down[..., :, None], across[..., None, :]
  ].permute(0, 1, 4, 2, 3)
  answers = draw(4)
  turned = torch.stack([torch.rot90(crops, k, (3, 4)) for k in range(4)])
  return turned[answers, image[:, None], torch.arange(COPIES, device=device)], answers
