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
from mae_torch import BETAS, DECAY, LEARNING_RATE, PATCH, RATIO, Mae, Shape, training
from side_by_side import fastest, machine, peers_device, train_step

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import patches

SIZE, ENCODER = 224, Shape(192, 12, 3)


def torch_step(images: np.ndarray, decoder):
  """(() -> one step, number of trained parameters)."""
  device = peers_device()
  grid = (SIZE // PATCH,) * 2
  positions = [patches.sincos_positions(grid, width) for width in (ENCODER.width, decoder[0])]
  model = Mae(ENCODER, Shape(*decoder), SIZE, [torch.from_numpy(table) for table in positions]).to(device)
  inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
  once = training(model, inputs)
  return lambda: once().item(), sum(p.numel() for p in model.parameters())


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
  encoder_table = jnp.asarray(patches.sincos_positions(grid, ENCODER.width))

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
