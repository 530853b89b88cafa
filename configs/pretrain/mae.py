"""Masked autoencoders on ImageNet: ViT-B, L, H, 800 and 1600 epochs.

Command:   ssl-jax train --config=configs/pretrain/mae.py:large_1600 --workdir=DIR --config.data.data_dir=TFDS
Hardware:  published on 128 TPU v3 cores, ViT-L 1600 epochs in 31 hours [He et al. 2022].
Expected:  after 1600 epochs fine-tuning / linear probe top-1 as listed beside each variant; ViT-L after 800: 85.4 with
           normalised pixels [He et al. 2022, tables 1 and 3; code README].
Memory:    remat="dots" computes norms, GELU and attention again in the backward pass, which costs 2% more FLOPs; without it 64
           images a chip of ViT-L do not fit a v5e. "full" computes whole blocks again; --config.sharding=fsdp cuts parameters and
           optimiser over the chips. All leave the result as it is.
"""

from ssl_jax import recipe

#                  encoder, epochs
VARIANTS = {
  "base": ("vit_base", 800),
  "base_1600": ("vit_base", 1600),  # 83.6 / 68.0
  "large": ("vit_large", 800),
  "large_1600": ("vit_large", 1600),  # 85.9 / 75.8
  "huge": ("vit_huge", 800),
  "huge_1600": ("vit_huge", 1600),  # 86.9 / 76.6
}


def get_config(variant="base"):
  if variant not in VARIANTS:
    raise ValueError(f"configs/pretrain/mae.py has no variant {variant!r}; known: {', '.join(VARIANTS)}")
  encoder, epochs = VARIANTS[variant]
  return recipe(
    method=dict(
      name="mae", mask_ratio=0.75, norm_pix=True, decoder_width=512, decoder_depth=8, decoder_heads=16
    ),
    encoder=dict(name=encoder, dtype="bfloat16", remat="dots"),
    augment=dict(name="supervised", views=1, size=224, scale=(0.2, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=1.5e-4,
      scaling="linear",
      momentum=0.9,
      beta2=0.95,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=40.0,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", interpolation="bicubic", workers=16),
    checkpoint=dict(
      every_steps=1000, keep=2, keep_every=31_200
    ),  # every 100 epochs, for pictures over epochs
    batch_size=4096,
    epochs=float(epochs),
    log_every=100,
  )
