"""Segmentation networks in PyTorch, written from the papers and the documentation of MMSegmentation.

The parts have the names of ours, so that one rule carries weights over and gradients back.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(x):
  return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


class Bottleneck(nn.Module):
  def __init__(self, wide, narrow, stride, dilation):
    super().__init__()
    self.Conv_0 = nn.Conv2d(narrow, narrow, 3, stride, dilation, dilation, bias=False)
    self.Conv_1, self.Conv_2 = (
      nn.Conv2d(wide, narrow, 1, bias=False),
      nn.Conv2d(narrow, 4 * narrow, 1, bias=False),
    )
    self.BatchNorm_0, self.BatchNorm_1 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(narrow)
    self.norm_last = nn.BatchNorm2d(4 * narrow)
    if stride > 1 or wide != 4 * narrow:
      self.conv_shortcut = nn.Conv2d(wide, 4 * narrow, 1, stride, bias=False)
      self.norm_shortcut = nn.BatchNorm2d(4 * narrow)

  def forward(self, x):
    y = F.relu(self.BatchNorm_0(self.Conv_1(x)))
    y = self.norm_last(self.Conv_2(F.relu(self.BatchNorm_1(self.Conv_0(y)))))
    return F.relu(y + (self.norm_shortcut(self.conv_shortcut(x)) if hasattr(self, "conv_shortcut") else x))


class DilatedResNet(nn.Module):
  """The maps of the last two of four stages; `strides` and `dilations` are lists of one entry per block."""

  def __init__(self, width, strides, dilations):
    super().__init__()
    self.conv_stem, self.norm_stem = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
    self.stages, wide = [], width
    for stage, (stride, dilation) in enumerate(zip(strides, dilations), 1):
      narrow, names = width * 2 ** (stage - 1), []
      for block, sizes in enumerate(zip(stride, dilation, strict=True), 1):
        names.append(f"stage{stage}_block{block}")
        setattr(self, names[-1], Bottleneck(wide, narrow, *sizes))
        wide = 4 * narrow
      self.stages.append(names)

  def forward(self, images):
    x = F.max_pool2d(F.relu(self.norm_stem(self.conv_stem(normalize(images)))), 3, 2, 1)
    maps = []
    for names in self.stages:
      for name in names:
        x = getattr(self, name)(x)
      maps.append(x)
    return maps[-2:]


class Leaves(nn.Module):
  """The parameters of a nested dict of shapes, as attributes of nested modules."""

  def __init__(self, shapes):
    super().__init__()
    for name, shape in shapes.items():
      setattr(self, name, Leaves(shape) if isinstance(shape, dict) else nn.Parameter(torch.zeros(shape)))


class TappedViT(Leaves):
  """The patch tokens after the blocks `taps`, counted from zero, as maps."""

  def __init__(self, shapes, taps, heads, patch):
    super().__init__(shapes)
    self.taps, self.heads, self.patch = taps, heads, patch

  def bias(self, block, rows, columns):
    """[heads, 1 + L, 1 + L], pair by pair."""
    pairs = []
    for y, x in np.ndindex(rows, columns):
      for v, u in np.ndindex(rows, columns):
        pairs.append(
          self.relative_rows[block, :, y - v + rows - 1]
          + self.relative_columns[block, :, x - u + columns - 1]
        )
    length = rows * columns
    return F.pad(torch.stack(pairs, -1).view(self.heads, length, length), (1, 0, 1, 0))

  def forward(self, images):
    (count, _, height, width), side = images.shape, self.patch
    rows, columns = height // side, width // side
    pixels = normalize(images).view(count, 3, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    x = pixels.reshape(count, rows * columns, -1) @ self.embed.kernel + self.embed.bias + self.positions
    x, maps, p = torch.cat([self.cls.expand(count, -1, -1), x], 1), [], self.blocks.block
    for i in range(p.norm1.scale.shape[0]):
      y = F.layer_norm(x, x.shape[-1:], p.norm1.scale[i], p.norm1.bias[i], 1e-6)
      qkv = (y @ p.attention.qkv.kernel[i] + p.attention.qkv.bias[i]).chunk(3, -1)
      query, key, value = (
        part.view(count, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2) for part in qkv
      )
      y = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias(i, rows, columns))
      x = x + y.transpose(1, 2).reshape(x.shape) @ p.attention.out.kernel[i] + p.attention.out.bias[i]
      y = F.layer_norm(x, x.shape[-1:], p.norm2.scale[i], p.norm2.bias[i], 1e-6)
      y = F.gelu(y @ p.mlp1.kernel[i] + p.mlp1.bias[i])
      x = x + y @ p.mlp2.kernel[i] + p.mlp2.bias[i]
      maps.append(x[:, 1:].transpose(1, 2).reshape(count, -1, rows, columns))
    return [maps[tap] for tap in self.taps]


class ConvNorm(nn.Module):
  def __init__(self, before, after, kernel, dilation=1):
    super().__init__()
    self.conv = nn.Conv2d(
      before, after, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False
    )
    self.norm = nn.BatchNorm2d(after)

  def forward(self, x):
    return F.relu(self.norm(self.conv(x)))


class FCN(nn.Module):
  def __init__(self, width, channels, classes, convolutions=1, dilation=1, concatenate=False):
    super().__init__()
    self.convolutions = convolutions
    for i in range(convolutions):
      setattr(self, f"conv{i + 1}", ConvNorm(channels if i else width, channels, 3, dilation))
    if concatenate:
      self.conv_both = ConvNorm(width + channels, channels, 3)
    self.classes = nn.Conv2d(channels, classes, 1)

  def forward(self, x):
    y = x
    for i in range(self.convolutions):
      y = getattr(self, f"conv{i + 1}")(y)
    return self.classes(self.conv_both(torch.cat([x, y], 1)) if hasattr(self, "conv_both") else y)


class FCNHead(nn.Module):
  def __init__(self, main, auxiliary=None):
    super().__init__()
    self.main, self.auxiliary = main, auxiliary

  def forward(self, maps):
    return self.main(maps[-1]), self.auxiliary(maps[-2]) if self.auxiliary else None


class UPerNet(nn.Module):
  def __init__(self, width, channels, auxiliary_channels, classes):
    super().__init__()
    double = lambda: nn.ConvTranspose2d(width, width, 2, 2)
    self.rescale, self.pooling = nn.Module(), nn.Module()
    self.rescale.first4, self.rescale.second4, self.rescale.first2 = double(), double(), double()
    self.rescale.norm4 = nn.BatchNorm2d(width)
    for bins in (1, 2, 3, 6):
      setattr(self.pooling, f"pool{bins}", ConvNorm(width, channels, 1))
    self.pooling.conv_both = ConvNorm(width + 4 * channels, channels, 3)
    self.lateral1, self.lateral2, self.lateral3 = (ConvNorm(width, channels, 1) for _ in range(3))
    self.smooth1, self.smooth2, self.smooth3 = (ConvNorm(channels, channels, 3) for _ in range(3))
    self.conv_all, self.classes = ConvNorm(4 * channels, channels, 3), nn.Conv2d(channels, classes, 1)
    self.auxiliary = FCN(width, auxiliary_channels, classes)

  def forward(self, maps):
    r, to = (
      self.rescale,
      lambda x, like: F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False),
    )
    fine, half, same = r.second4(F.gelu(r.norm4(r.first4(maps[0])))), r.first2(maps[1]), maps[2]
    top = F.max_pool2d(maps[3], 2, 2)
    pooled = [
      to(getattr(self.pooling, f"pool{bins}")(F.adaptive_avg_pool2d(top, bins)), top) for bins in (1, 2, 3, 6)
    ]
    level4 = self.pooling.conv_both(torch.cat([top, *pooled], 1))
    level3 = self.lateral3(same)
    level3 = level3 + to(level4, level3)
    level2 = self.lateral2(half)
    level2 = level2 + to(level3, level2)
    level1 = self.lateral1(fine)
    level1 = level1 + to(level2, level1)
    level1, level2, level3 = self.smooth1(level1), self.smooth2(level2), self.smooth3(level3)
    every = torch.cat([level1, to(level2, level1), to(level3, level1), to(level4, level1)], 1)
    return self.classes(self.conv_all(every)), self.auxiliary(maps[2])


class Segmenter(nn.Module):
  def __init__(self, encoder, head):
    super().__init__()
    self.encoder, self.head = encoder, head

  def forward(self, images):
    return self.head(self.encoder(images))


def loss(outputs, labels, align_corners, auxiliary_weight=0.4):
  """Cross-entropy of the upsampled logits, averaged over the labels that are not 255."""
  values = [
    F.cross_entropy(
      F.interpolate(x, labels.shape[1:], mode="bilinear", align_corners=align_corners),
      labels,
      ignore_index=255,
    )
    for x in outputs
    if x is not None
  ]
  return values[0] + auxiliary_weight * sum(values[1:])


NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def find(module, path):
  """(the tensor at a path of ours, the permutation from our axes to its axes)."""
  *parts, name = path
  owner = module.get_submodule(".".join(parts))
  if isinstance(owner, Leaves):
    return owner._parameters[name], None
  axes = None
  if name == "kernel":
    axes = (2, 3, 0, 1) if isinstance(owner, nn.ConvTranspose2d) else (3, 2, 0, 1)
  return getattr(owner, NAMES.get(name, name)), axes


def fill(module, leaves):
  """Sets every parameter and statistic of `module` to ours, a dict {path: array}."""
  filled = set()
  for path, leaf in leaves.items():
    tensor, axes = find(module, path)
    leaf = np.asarray(leaf)
    if axes and leaf.ndim == 2:  # our classifier of pixels is a matrix
      leaf = leaf[None, None]
    leaf = leaf.transpose(axes) if axes else leaf
    assert tensor.shape == leaf.shape, (path, tensor.shape, leaf.shape)
    with torch.no_grad():
      tensor.copy_(torch.from_numpy(leaf.copy()))
    filled.add(id(tensor))
  left = [name for name, tensor in module.named_parameters() if id(tensor) not in filled]
  assert not left, left


def gradient(module, path, shape):
  """The gradient of the parameter at a path of ours, in our layout."""
  tensor, axes = find(module, path)
  found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
  found = found.numpy()
  return (found.transpose(np.argsort(axes)) if axes else found).reshape(shape)
