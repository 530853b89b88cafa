"""Test-time training along a video in PyTorch, the peer of video_streams.py. Nothing here imports JAX."""

import numpy as np
import torch
import torch.nn.functional as F
from mae_torch import PATCH, Shape, blocks
from torch import nn

RATE, ENCODER_RATE, DECAY, CLIP = 1e-4, 0.1, 0.05, 0.01
HIDDEN = 0.8  # fraction of the patches


class Joint(nn.Module):
  """A vision transformer of four channels with two linear heads: classes and pixels."""

  def __init__(self, shape: Shape, classes: int):
    super().__init__()
    self.embed = nn.Conv2d(4, shape.width, PATCH, PATCH)
    self.cls = nn.Parameter(torch.randn(1, 1, shape.width) * 0.02)
    self.blocks = nn.Sequential(*blocks(shape))
    self.head = nn.Sequential(nn.BatchNorm2d(shape.width), nn.Conv2d(shape.width, classes, 1))
    self.decoder = nn.Sequential(
      nn.BatchNorm2d(shape.width), nn.Conv2d(shape.width, 3 * PATCH * PATCH, 1), nn.PixelShuffle(PATCH)
    )
    self.positions: dict[tuple[int, int], torch.Tensor] = {}  # arbitrary values

  def maps(self, images):
    """[B, D, h, w] of images [B, 4, H, W]."""
    x = self.embed(images)
    grid, x = tuple(x.shape[2:]), x.flatten(2).transpose(1, 2)
    if grid not in self.positions:
      self.positions[grid] = 0.02 * torch.randn(1, *x.shape[1:])
    x = torch.cat([self.cls.expand(len(x), -1, -1), x + self.positions[grid]], 1)
    return self.blocks(x)[:, 1:].transpose(1, 2).unflatten(2, grid)


def follow(frames: np.ndarray, shape: Shape, classes: int, *, side: int, window: int, copies: int):
  """Returns () -> the classes i64[T, H, W].

  At each frame the encoder and the decoder take an AdamW step on crops of the latest frames, then follows the
  prediction, as in the released code.
  """
  torch.manual_seed(0)
  model = Joint(shape, classes).eval()
  for leaf in model.head.parameters():
    leaf.requires_grad_(False)
  start = {name: leaf.clone() for name, leaf in model.state_dict().items()}
  mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
  pixels = ((torch.from_numpy(frames).float() / 255 - mean) / deviation).permute(0, 3, 1, 2).contiguous()
  encoder = [*model.embed.parameters(), model.cls, *model.blocks.parameters()]
  draw = np.random.default_rng(0)

  def learn(moment: int):
    groups = [{"params": encoder, "lr": RATE * ENCODER_RATE}, {"params": list(model.decoder.parameters())}]
    rule = torch.optim.AdamW(groups, RATE, weight_decay=DECAY, fused=True)
    latest = range(max(moment + 1 - window, 0), moment + 1)
    order = [draw.permutation(latest) for _ in range(-(-copies // len(latest)))]
    crops = []
    for row in np.concatenate(order)[:copies]:
      top, left = (int(draw.integers(0, pixels.shape[axis] - side + 1)) for axis in (2, 3))
      crops.append(pixels[row, :, top : top + side, left : left + side])
    images, grid = torch.stack(crops), side // PATCH
    ranks = torch.rand(copies, grid**2).argsort(1).argsort(1)
    seen = (ranks >= round(HIDDEN * grid**2)).float().reshape(copies, 1, grid, grid)
    seen = seen.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    loss = F.mse_loss(model.decoder(model.maps(torch.cat([images * seen, seen], 1))), images)
    loss.backward()
    nn.utils.clip_grad_norm_([*encoder, *model.decoder.parameters()], CLIP)
    rule.step()
    rule.zero_grad(set_to_none=True)

  def predict(moment: int):
    image = pixels[moment : moment + 1]
    with torch.no_grad():
      logits = model.head(model.maps(torch.cat([image, torch.ones_like(image[:, :1])], 1)))
      return F.interpolate(logits, image.shape[2:], mode="bilinear").argmax(1)[0]

  def run():
    model.load_state_dict(start)
    found = []
    for moment in range(len(frames)):
      learn(moment)
      found.append(predict(moment).numpy())
    return found

  return run
