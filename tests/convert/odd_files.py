"""Small files of PyTorch's networks, sound and odd."""

import numpy as np

Tensors = dict[str, np.ndarray]


def _drawn(shapes: dict) -> Tensors:
  rng = np.random.default_rng(0)
  return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items() if shape}


def _blocks(prefix: str, depth: int, width: int) -> dict:
  leaves = {
    **{f"{norm}.{leaf}": (width,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")},
    "attn.qkv.weight": (3 * width, width),
    "attn.qkv.bias": (3 * width,),
    "attn.proj.weight": (width, width),
    "attn.proj.bias": (width,),
    "mlp.fc1.weight": (4 * width, width),
    "mlp.fc1.bias": (4 * width,),
    "mlp.fc2.weight": (width, 4 * width),
    "mlp.fc2.bias": (width,),
  }
  return {f"{prefix}blocks.{i}.{name}": shape for i in range(depth) for name, shape in leaves.items()}


def vit(width: int = 8, depth: int = 2, patch: int = 2, tokens: int = 5, **changes) -> Tensors:
  """A vision transformer of 2 x 2 patches; `changes` are shapes, None removes a tensor."""
  return _drawn(
    {
      "cls_token": (1, 1, width),
      "pos_embed": (1, tokens, width),
      "patch_embed.proj.weight": (width, 3, patch, patch),
      "patch_embed.proj.bias": (width,),
      **_blocks("", depth, width),
      "norm.weight": (width,),
      "norm.bias": (width,),
      "head.weight": (10, width),
      "head.bias": (10,),
      **changes,
    }
  )


def mae(sincos: np.ndarray, width: int = 8, decoder: int = 32, patch: int = 2) -> Tensors:
  """A masked autoencoder; `sincos` f32[1, 5, decoder] are the decoder's positions."""
  return {
    **vit(width, patch=patch, **{"head.weight": None, "head.bias": None}),
    **_drawn(
      {
        "mask_token": (1, 1, decoder),
        "decoder_embed.weight": (decoder, width),
        "decoder_embed.bias": (decoder,),
        **_blocks("decoder_", 1, decoder),
        "decoder_norm.weight": (decoder,),
        "decoder_norm.bias": (decoder,),
        "decoder_pred.weight": (3 * patch**2, decoder),
        "decoder_pred.bias": (3 * patch**2,),
      }
    ),
    "decoder_pos_embed": sincos,
  }


def resnet(width: int = 4, prefix: str = "") -> Tensors:
  """A ResNet-10 as torchvision would name it."""

  def norm(name, channels):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (channels,) for leaf in leaves}

  shapes = {
    "conv1.weight": (width, 3, 3, 3),
    **norm("bn1", width),
    "fc.weight": (10, 8 * width),
    "fc.bias": (10,),
  }
  before = width
  for stage in range(1, 5):
    now, block = width * 2 ** (stage - 1), f"layer{stage}.0"
    shapes |= {
      f"{block}.conv1.weight": (now, before, 3, 3),
      **norm(f"{block}.bn1", now),
      f"{block}.conv2.weight": (now, now, 3, 3),
      **norm(f"{block}.bn2", now),
    }
    if now != before:
      shapes |= {f"{block}.downsample.0.weight": (now, before, 1, 1), **norm(f"{block}.downsample.1", now)}
    before = now
  drawn = _drawn(shapes)
  return {
    prefix + name: np.abs(value) if name.endswith("running_var") else value for name, value in drawn.items()
  }
