"""Measures the MAE step of ViT-Ti/16 at 224 px: ours and the same step in PyTorch, on the same device.

    python tests/benchmarks/mae_step.py [--batch 32] [--rounds 5] [--decoder 192 4 3]

Needs the extra `bench`. Both compute the same step: random masking, encoder on the visible patches, decoder
on all patches, masked error of normalised pixels, AdamW; in float32, with the same shapes and parameter
counts. PyTorch runs eagerly, with its fused `scaled_dot_product_attention`, and restores the order of the
patches by gather as the released code does. Rounds alternate between the two, and the fastest of each counts.
The last line is one JSON object; `ratio` above 1 means that ours is faster. It also holds:

- `encoder_cost_of_visible`: seconds of the encoder's forward and backward pass at mask ratio 0.75, divided by
  those with all patches.
- `masking_share`: the fraction of the step's time that masking takes: drawing the masks, selecting the
  visible and the removed pixels, assembling the decoder's sequence, and the gradient of all this.

Start it with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment, which `ssl-jax` sets for itself.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from side_by_side import fastest, machine, peers_device, train_step
from torch import nn

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import patches

SIZE, PATCH, WIDTH, DEPTH, HEADS = 224, 16, 192, 12, 3
RATIO = 0.75
LEARNING_RATE, DECAY, BETAS = 1.5e-4, 0.05, (0.9, 0.95)


class TorchBlock(nn.Module):
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


class TorchMae(nn.Module):
  def __init__(self, decoder: tuple[int, int, int]):
    super().__init__()
    width, depth, heads = decoder
    grid = (SIZE // PATCH,) * 2
    self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
    self.register_buffer("positions", torch.from_numpy(patches.sincos_positions(grid, WIDTH))[None])
    self.register_buffer("decoder_positions", torch.from_numpy(patches.sincos_positions(grid, width))[None])
    self.cls, self.mask = (
      nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02),
      nn.Parameter(torch.randn(1, 1, width) * 0.02),
    )
    self.encoder = nn.Sequential(
      *(TorchBlock(WIDTH, HEADS) for _ in range(DEPTH)), nn.LayerNorm(WIDTH, eps=1e-6)
    )
    self.bridge = nn.Linear(WIDTH, width)
    self.decoder = nn.Sequential(
      *(TorchBlock(width, heads) for _ in range(depth)),
      nn.LayerNorm(width, eps=1e-6),
      nn.Linear(width, PATCH * PATCH * 3),
    )

  def encode(self, images, keep: int):
    x = self.embed(images).flatten(2).transpose(1, 2) + self.positions
    shuffle = torch.rand(x.shape[:2]).argsort(1)
    rows = shuffle[:, :keep, None].expand(-1, -1, x.shape[2])
    x = torch.cat([self.cls.expand(len(x), -1, -1), x.gather(1, rows)], 1)
    return self.encoder(x), shuffle.argsort(1)

  def forward(self, images):
    length = (SIZE // PATCH) ** 2
    keep = int(length * (1 - RATIO))
    tokens, restore = self.encode(images, keep)
    x = self.bridge(tokens)
    body = torch.cat([x[:, 1:], self.mask.expand(len(x), length - keep, -1)], 1)
    body = body.gather(1, restore[:, :, None].expand(-1, -1, x.shape[2])) + self.decoder_positions
    predicted = self.decoder(torch.cat([x[:, :1], body], 1))[:, 1:]
    side = SIZE // PATCH
    target = (
      images.reshape(len(x), 3, side, PATCH, side, PATCH)
      .permute(0, 2, 4, 3, 5, 1)
      .reshape(len(x), length, -1)
    )
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    masked = (restore >= keep).float()
    return (((predicted - target) ** 2).mean(-1) * masked).sum() / masked.sum()


def torch_step(images: np.ndarray, decoder):
  """(() -> one step, number of trained parameters)."""
  device = peers_device()
  model = TorchMae(decoder).to(device)
  adam = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY, fused=True)
  inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)

  def once():
    adam.zero_grad(set_to_none=True)
    loss = model(inputs)
    loss.backward()
    adam.step()
    return loss.item()

  return once, sum(p.numel() for p in model.parameters())


def our_step(images: np.ndarray, decoder):
  """(() -> one step, number of trained parameters)."""
  width, depth, heads = decoder
  adam = dict(
    name="adamw",
    learning_rate=LEARNING_RATE,
    momentum=BETAS[0],
    beta2=BETAS[1],
    weight_decay=DECAY,
    weight_decay_on="matrices",
    schedule="constant",
  )
  return train_step(
    "mae",
    models.make("vit_tiny", normalize="none"),
    {"image": images},
    optimizer=adam,
    mask_ratio=RATIO,
    decoder_width=width,
    decoder_depth=depth,
    decoder_heads=heads,
  )


def encoder_step(images: np.ndarray, keep: int):
  """Returns () -> forward and backward pass of the encoder on `keep` patches of each image."""
  encoder = models.make("vit_tiny", normalize="none")
  batch, length = len(images), (SIZE // PATCH) ** 2
  order = jnp.argsort(jax.random.uniform(jax.random.key(0), (batch, length)), axis=1)[:, :keep]
  images = jnp.asarray(images)
  weights = jax.jit(encoder.init)(jax.random.key(0), images, visible=order)
  step = jax.jit(
    jax.grad(
      lambda params: jnp.square(
        encoder.apply(Weights(params, {}), images, train=True, visible=order)[0]
      ).mean()
    )
  )
  return lambda: jax.block_until_ready(step(weights.params))


def masking_step(images: np.ndarray, width: int):
  """Returns () -> forward and backward pass of everything that masking adds, without the networks."""
  images, grid = jnp.asarray(images), (SIZE // PATCH,) * 2
  length, keep = grid[0] * grid[1], grid[0] * grid[1] // 4
  table = jnp.asarray(patches.sincos_positions(grid, width))
  encoder_table = jnp.asarray(patches.sincos_positions(grid, WIDTH))

  def cost(tokens, mask, key):
    order = patches.random_order(key, len(images), grid, RATIO)
    pixels = patches.take_patches(patches.patchify(images, PATCH), order)
    positions = table[order]
    sequence = jnp.concatenate(
      [tokens[:, :1], tokens[:, 1:] + positions[:, :keep], mask + positions[:, keep:]], axis=1
    )
    return jnp.square(sequence).mean(), (pixels, encoder_table[order[:, :keep]])

  step = jax.jit(jax.grad(cost, (0, 1), has_aux=True))
  tokens, mask = jnp.ones((len(images), 1 + keep, width)), jnp.ones((1, 1, width))
  assert length % 4 == 0
  return lambda: jax.block_until_ready(step(tokens, mask, jax.random.key(0)))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--decoder", type=int, nargs=3, default=[192, 4, 3], metavar=("WIDTH", "DEPTH", "HEADS")
  )
  args = parser.parse_args()
  images = np.random.default_rng(0).standard_normal((args.batch, SIZE, SIZE, 3)).astype(np.float32)
  (ours, ours_count), (theirs, theirs_count) = (
    our_step(images, args.decoder),
    torch_step(images, args.decoder),
  )
  assert ours_count == theirs_count, (ours_count, theirs_count)
  step = fastest({"ours": ours, "torch": theirs}, args.rounds)
  length = (SIZE // PATCH) ** 2
  encoder = fastest(
    {"visible": encoder_step(images, length // 4), "all": encoder_step(images, length)}, args.rounds
  )
  masking = fastest({"masking": masking_step(images, args.decoder[0])}, args.rounds)["masking"]
  print(
    f"step: ours {step['ours']:.3f} s, PyTorch {step['torch']:.3f} s; "
    f"encoder: visible {encoder['visible']:.3f} s, all {encoder['all']:.3f} s",
    flush=True,
  )
  print(
    json.dumps(
      {
        "benchmark": "mae_step",
        "batch": args.batch,
        "decoder": args.decoder,
        "parameters": ours_count,
        "threads": torch.get_num_threads(),
        **machine("torch"),
        "ours_seconds": round(step["ours"], 4),
        "torch_seconds": round(step["torch"], 4),
        "ratio": round(step["torch"] / step["ours"], 3),
        "encoder_cost_of_visible": round(encoder["visible"] / encoder["all"], 3),
        "masking_share": round(masking / step["ours"], 4),
      }
    )
  )


if __name__ == "__main__":
  main()
