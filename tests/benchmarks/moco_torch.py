"""MoCo v2 and SimCLR in PyTorch, the peers that benchmarks measure beside ours. Nothing here imports JAX."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

DIM, LEARNING_RATE, DECAY = 128, 0.03, 1e-4


class Block(nn.Module):
  """A residual block of two 3x3 convolutions."""

  def __init__(self, inner: int, outer: int, stride: int):
    super().__init__()
    self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
    self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
    self.shortcut = (
      nn.Identity()
      if inner == outer
      else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
    )

  def forward(self, x):
    y = F.relu(self.norm1(self.conv1(x)), inplace=True)
    return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


def small_resnet(width: int) -> nn.Sequential:
  """A ResNet-18 with the stride-1 stem and the two-layer head of MoCo v2."""
  layers, inner = (
    [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)],
    width,
  )
  for stage in range(4):
    for block in range(2):
      outer = width * 2**stage
      layers.append(Block(inner, outer, 2 if stage and not block else 1))
      inner = outer
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *moco_head(inner))


def moco_head(inner: int) -> nn.Sequential:
  """The two-layer head of MoCo v2."""
  return nn.Sequential(nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, DIM))


class Moco:
  """One object that holds all state, as is usual there."""

  def __init__(
    self, net: nn.Module, *, queue: int, momentum: float, temperature: float, wrap=lambda net: net
  ):
    """`net` has its head; `wrap` is torch.compile, or nothing."""
    query = net.to(memory_format=torch.channels_last)
    key = copy.deepcopy(query).requires_grad_(False)
    self.pairs = list(key.parameters()), list(query.parameters())
    self.query, self.key = wrap(query), wrap(key)
    device = self.pairs[0][0].device
    self.queue, self.cursor = F.normalize(torch.randn(queue, DIM, device=device), dim=1), 0
    self.momentum, self.temperature = momentum, temperature
    self.sgd = torch.optim.SGD(self.pairs[1], LEARNING_RATE, momentum=0.9, weight_decay=DECAY)

  def loss(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (the loss, the keys)."""
    queries = F.normalize(self.query(first), dim=1)
    with torch.no_grad():
      torch._foreach_lerp_(self.pairs[0], [leaf.detach() for leaf in self.pairs[1]], 1 - self.momentum)
      keys = F.normalize(self.key(second), dim=1)
    positive = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ self.queue.T], 1) / self.temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)), keys

  def step(self, first: torch.Tensor, second: torch.Tensor, *, autocast: bool = False) -> torch.Tensor:
    """One training step on two views [B, 3, H, W]. Returns the loss, which nobody has waited for."""
    with torch.autocast(first.device.type, torch.bfloat16, enabled=autocast):
      loss, keys = self.loss(first, second)
    self.sgd.zero_grad(set_to_none=True)
    loss.backward()
    self.sgd.step()
    self.queue[self.cursor : self.cursor + len(keys)] = keys
    self.cursor = (self.cursor + len(keys)) % len(self.queue)
    return loss.detach()


class Simclr:
  """SimCLR with NT-Xent over both views of the whole batch, and LARS."""

  def __init__(self, net: nn.Module, width: int, *, temperature: float, wrap=lambda net: net):
    """`net` returns features of the given width."""
    head = nn.Sequential(
      nn.Linear(width, width, bias=False),
      nn.BatchNorm1d(width),
      nn.ReLU(inplace=True),
      nn.Linear(width, DIM, bias=False),
      nn.BatchNorm1d(DIM),
    )
    whole = nn.Sequential(net, head).to(memory_format=torch.channels_last)
    self.lars = Lars(list(whole.parameters()))
    self.net, self.temperature = wrap(whole), temperature

  def step(self, views: torch.Tensor, *, autocast: bool = False) -> torch.Tensor:
    """One training step on [2 B, 3, H, W], the first views of all images before the second views."""
    with torch.autocast(views.device.type, torch.bfloat16, enabled=autocast):
      rows = F.normalize(self.net(views).float(), dim=1)
      logits = (rows @ rows.T).float() / self.temperature
      logits.fill_diagonal_(float("-inf"))
      loss = F.cross_entropy(logits, torch.arange(len(rows), device=rows.device).roll(len(rows) // 2))
    loss.backward()
    self.lars.step()
    return loss.detach()


class Lars:
  """LARS with momentum 0.9 and weight decay 1e-6 on matrices, by operations on lists of tensors."""

  def __init__(self, params: list[torch.Tensor]):
    self.params, self.momenta = params, [torch.zeros_like(leaf) for leaf in params]
    self.matrices = [i for i, leaf in enumerate(params) if leaf.ndim > 1]

  @torch.no_grad()
  def step(self):
    gradients = [leaf.grad for leaf in self.params]
    weights, matrices = ([leaves[i] for i in self.matrices] for leaves in (self.params, gradients))
    torch._foreach_add_(matrices, weights, alpha=1e-6)
    norms = torch._foreach_norm(weights), torch._foreach_norm(matrices)
    ratios = [0.001 * w / g.clamp_min(1e-12) for w, g in zip(*norms)]
    torch._foreach_mul_(matrices, ratios)
    torch._foreach_mul_(self.momenta, 0.9)
    torch._foreach_add_(self.momenta, gradients, alpha=0.3)
    torch._foreach_sub_(self.params, self.momenta)
    for leaf in self.params:
      leaf.grad = None
