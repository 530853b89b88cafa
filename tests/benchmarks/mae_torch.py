"""A masked autoencoder in PyTorch, the peer that benchmarks measure beside ours. Nothing here imports JAX."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

PATCH, RATIO = 16, 0.75
LEARNING_RATE, DECAY, BETAS = 1.5e-4, 0.05, (0.9, 0.95)


class Shape(NamedTuple):
  """The sizes of a transformer."""

  width: int
  depth: int
  heads: int


class Block(nn.Module):
  """A transformer block with scaled_dot_product_attention."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.heads = heads
    self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
    self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
    self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

  def forward(self, x):
    batch, length, width = x.shape
    query, key, value = (
      self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    )
    attended = F.scaled_dot_product_attention(query, key, value)
    x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
    return x + self.mlp(self.norm2(x))


def blocks(shape: Shape) -> list[nn.Module]:
  """The blocks and the last norm of a transformer."""
  return [*(Block(shape.width, shape.heads) for _ in range(shape.depth)), nn.LayerNorm(shape.width, eps=1e-6)]


class Mae(nn.Module):
  """Returns the loss of images [B, 3, side, side]. It restores the order of the patches by gather, as the
  released code does.
  """

  def __init__(self, encoder: Shape, decoder: Shape, side: int, positions=None):
    """`positions`: the two tables [L, width] of encoder and decoder; None: arbitrary values."""
    super().__init__()
    self.side, widths = side // PATCH, (encoder.width, decoder.width)
    positions = positions or [0.02 * torch.randn(self.side**2, width) for width in widths]
    self.embed = nn.Conv2d(3, encoder.width, PATCH, PATCH)
    self.register_buffer("positions", torch.as_tensor(positions[0])[None])
    self.register_buffer("decoder_positions", torch.as_tensor(positions[1])[None])
    self.cls, self.mask = (nn.Parameter(torch.randn(1, 1, width) * 0.02) for width in widths)
    self.encoder = nn.Sequential(*blocks(encoder))
    self.bridge = nn.Linear(*widths)
    self.decoder = nn.Sequential(*blocks(decoder), nn.Linear(decoder.width, PATCH * PATCH * 3))

  def embedded(self, images):
    """[B, L, D]: the embedded patches with their positions."""
    return self.embed(images).flatten(2).transpose(1, 2) + self.positions

  def tokens(self, x):
    """[B, 1 + N, D]: the encoder's output for the embedded patches [B, N, D]."""
    return self.encoder(torch.cat([self.cls.expand(len(x), -1, -1).to(x.dtype), x], 1))

  def encode(self, images, keep: int):
    x = self.embedded(images)
    shuffle = torch.rand(x.shape[:2], device=x.device).argsort(1)
    rows = shuffle[:, :keep, None].expand(-1, -1, x.shape[2])
    return self.tokens(x.gather(1, rows)), shuffle.argsort(1)

  def forward(self, images):
    length = self.side**2
    keep = int(length * (1 - RATIO))
    tokens, restore = self.encode(images, keep)
    x = self.bridge(tokens)
    body = torch.cat([x[:, 1:], self.mask.expand(len(x), length - keep, -1).to(x.dtype)], 1)
    body = body.gather(1, restore[:, :, None].expand(-1, -1, x.shape[2])) + self.decoder_positions
    predicted = self.decoder(torch.cat([x[:, :1].to(body.dtype), body], 1))[:, 1:]
    target = (
      images.reshape(len(x), 3, self.side, PATCH, self.side, PATCH)
      .permute(0, 2, 4, 3, 5, 1)
      .reshape(len(x), length, -1)
    )
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    masked = (restore >= keep).float()
    return (((predicted - target) ** 2).mean(-1) * masked).sum() / masked.sum()


def training(model: nn.Module, images: torch.Tensor, *, autocast: bool = False, wrap=lambda net: net):
  """Returns () -> the loss of one more training step with AdamW, which nobody has waited for."""
  adam = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY, fused=True)
  net = wrap(model)

  def once():
    adam.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
      loss = net(images)
    loss.backward()
    adam.step()
    return loss.detach()

  return once


class Adapting:
  """Test-time training by masked autoencoding: the encoder and the mask token of a frozen classifier adapt to
  one image, from the same weights each time.
  """

  def __init__(self, model: Mae, head: Shape, classes: int, *, steps: int, copies: int, wrap=lambda net: net):
    device, width = model.cls.device, model.cls.shape[2]
    self.model, self.steps, self.copies = model, steps, copies
    model.decoder.requires_grad_(False), model.bridge.requires_grad_(False)
    self.moving = [leaf for leaf in model.parameters() if leaf.requires_grad]
    self.start = [leaf.detach().clone() for leaf in self.moving]
    self.head = nn.Sequential(nn.Linear(width, head.width), *blocks(head)).to(device)
    self.top = nn.Linear(head.width, classes).to(device)
    self.net = wrap(model)

  def adapt(self, image: torch.Tensor) -> torch.Tensor:
    """Returns the logits [1, classes] of an image [3, H, W] after the adaptation to it."""
    with torch.no_grad():
      torch._foreach_copy_(self.moving, self.start)
    sgd = torch.optim.SGD(self.moving, 0.005, momentum=0.9)
    images = image[None].expand(self.copies, -1, -1, -1).contiguous()
    cast = torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda)
    for _ in range(self.steps):
      sgd.zero_grad(set_to_none=True)
      with cast:
        loss = self.net(images)
      loss.backward()
      sgd.step()
    with torch.no_grad(), cast:
      tokens = self.model.tokens(self.model.embedded(image[None]))
      return self.top(self.head(tokens)[:, 0]).float()
