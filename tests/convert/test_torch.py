"""PyTorch checkpoints: logits of torchvision and timm architectures, and files that hold other objects."""

import os

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.abilities import Classifier
from ssl_jax.convert import Options, import_weights
from ssl_jax.run.restore import restore

torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
nn, F = torch.nn, torch.nn.functional


class Bottleneck(nn.Module):
  def __init__(self, wide, narrow, stride):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(wide, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
    self.conv2, self.bn2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False), nn.BatchNorm2d(narrow)
    self.conv3, self.bn3 = nn.Conv2d(narrow, 4 * narrow, 1, bias=False), nn.BatchNorm2d(4 * narrow)
    if stride > 1 or wide != 4 * narrow:
      self.downsample = nn.Sequential(
        nn.Conv2d(wide, 4 * narrow, 1, stride, bias=False), nn.BatchNorm2d(4 * narrow)
      )

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)))
    y = F.relu(self.bn2(self.conv2(y)))
    return F.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet50(nn.Module):
  def __init__(self, classes=1000):
    super().__init__()
    self.conv1, self.bn1, wide = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), 64
    for stage, depth in enumerate((3, 4, 6, 3), 1):
      blocks, narrow = [], 32 * 2**stage
      for i in range(depth):
        blocks.append(Bottleneck(wide, narrow, 2 if stage > 1 and not i else 1))
        wide = 4 * narrow
      setattr(self, f"layer{stage}", nn.Sequential(*blocks))
    self.fc = nn.Linear(wide, classes)

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
    return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class Part(nn.Module):
  """A module whose attributes are the given modules."""

  def __init__(self, **parts):
    super().__init__()
    for name, part in parts.items():
      setattr(self, name, part)


class ViT(nn.Module):
  def __init__(self, width=768, depth=12, heads=12, patch=16, side=224, classes=1000):
    super().__init__()
    self.heads = heads
    self.cls_token = nn.Parameter(torch.randn(1, 1, width))
    self.pos_embed = nn.Parameter(torch.randn(1, 1 + (side // patch) ** 2, width))
    self.patch_embed = Part(proj=nn.Conv2d(3, width, patch, patch))
    self.blocks = nn.Sequential(
      *(
        Part(
          norm1=nn.LayerNorm(width, eps=1e-6),
          attn=Part(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width)),
          norm2=nn.LayerNorm(width, eps=1e-6),
          mlp=Part(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width)),
        )
        for _ in range(depth)
      )
    )
    self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

  def forward(self, x):
    x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
    x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
    for block in self.blocks:
      q, k, v = block.attn.qkv(block.norm1(x)).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
      x = x + block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
      x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
    return self.head(self.norm(x)[:, 0])


@pytest.mark.parametrize(
  "kind, make, options, scale",
  [
    (
      "torchvision_resnet",
      ResNet50,
      Options(),
      (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])),
    ),
    ("timm_vit", ViT, Options(normalize="signed"), (torch.full((3,), 0.5), torch.full((3,), 0.5))),
  ],
)
def test_logits_are_those_of_torch(kind, make, options, scale, tmp_path):
  torch.manual_seed(0)
  model = make().eval()
  for name, value in model.state_dict().items():
    if name.endswith("running_mean"):
      value.normal_(0, 0.1)
    elif name.endswith("running_var"):
      value.uniform_(0.8, 1.2)
  torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "file.pth")
  import_weights(kind, tmp_path / "file.pth", tmp_path / "run", options)
  images = torch.rand(2, 3, 224, 224)
  mean, deviation = (part[None, :, None, None] for part in scale)
  with torch.no_grad():
    expected = model((images - mean) / deviation).numpy()
  backbone = restore(tmp_path / "run", parallel.make_mesh()).backbone
  found = jax.jit(backbone.method.abilities[Classifier].predict)(
    *backbone.weights, images.permute(0, 2, 3, 1).numpy()
  )
  assert expected.std() > 0.1
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Hostile:
  def __reduce__(self):
    return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", [{"state_dict": Hostile()}, [1, 2], {"epoch": 3}])
def test_nothing_but_tensors_is_read(content, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  torch.save(content, "file.pth")
  with pytest.raises(ValueError, match="cannot be read as a file of tensors only|holds no dict of tensors"):
    import_weights("torchvision_resnet", "file.pth", "run")
  assert not (tmp_path / "executed").exists() and not (tmp_path / "run").exists()


def test_half_precision_becomes_float32(tmp_path):
  torch.manual_seed(0)
  model = ResNet50(classes=10).half()
  torch.save(model.state_dict(), tmp_path / "file.pth")
  import_weights("torchvision_resnet", tmp_path / "file.pth", tmp_path / "run")
  kernel = restore(tmp_path / "run", parallel.make_mesh()).backbone.weights.params["head"]["Dense_0"][
    "kernel"
  ]
  np.testing.assert_array_equal(kernel, model.fc.weight.detach().float().numpy().T)
