"""Masked autoencoders on ImageNet: ViT-B, L and H, 800 or 1600 epochs.

Command:   ssl-jax train --config=configs/pretrain/mae.py:large_1600 --workdir=DIR --config.data.data_dir=TFDS
Hardware:  Published on 128 TPU v3 cores: ViT-L, 1600 epochs, in 31 hours [He et al. 2022].
Expected:  After 1600 epochs, top-1 of fine-tuning / linear probe as listed beside each variant; ViT-L after
           800 epochs with normalised pixels: fine-tuning 85.4 [He et al. 2022, tables 1 and 3; README of
           the code].
Memory:    remat="dots" recomputes the norms, GELU and attention in the backward pass, which costs 2% more
           FLOPs; without it, 64 images of ViT-L per chip do not fit on a v5e. remat="full" recomputes whole
           blocks. --config.sharding=fsdp shards the parameters and the optimiser state over the chips. None
           of these options changes the result.
"""

from ssl_jax import check_variant, recipe

# encoder, epochs; the comments give fine-tuning / linear probe, top-1
VARIANTS = {
  "base": ("vit_base", 800),
  "base_1600": ("vit_base", 1600),  # 83.6 / 68.0
  "large": ("vit_large", 800),
  "large_1600": ("vit_large", 1600),  # 85.9 / 75.8
  "huge": ("vit_huge", 800),
  "huge_1600": ("vit_huge", 1600),  # 86.9 / 76.6
}


def get_config(variant="base"):
  check_variant(variant, VARIANTS, __file__)
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
    # Every 100 epochs a checkpoint is kept, for `ssl-jax show reconstructions --over-epochs`.
    checkpoint=dict(every_steps=1000, keep=2, keep_every=31_200),
    batch_size=4096,
    epochs=float(epochs),
    log_every=100,
  )
