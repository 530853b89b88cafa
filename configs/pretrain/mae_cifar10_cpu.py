"""Masked autoencoder on CIFAR-10 with ViT-Ti/4, or a smaller one, for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/mae_cifar10_cpu.py:VARIANT --workdir=DIR --config.data.data_dir=TFDS
           ssl-jax show reconstructions --workdir=DIR
           ssl-jax evaluate --config=configs/transfer/small.py --workdir=DIR
           ssl-jax train --config=configs/transfer/finetune.py:cifar10_cpu --config.start.workdir=DIR --workdir=DIR2
Variants:  tiny: half an hour; small: half an hour, smaller and longer, for test-time training, which repeats it on every test image;
           small_norm_pix: a quarter of an hour more from there (--config.start.workdir=DIR), with pixels of each patch normalised.
Measured:  docs/results.md. Pixels are predicted as they are: patches of 4 x 4 have little structure of their own, and the pictures
           need no help from the true patch. At test time they are normalised, as published: without it images of low contrast
           teach nothing. The decoder is small: it sees four times the encoder's tokens.
"""

from ssl_jax import recipe

SMALL = (
  dict(name="vit", width=128, depth=6, heads=4),
  dict(decoder_width=64, decoder_depth=2, decoder_heads=2),
)
#           encoder, decoder, epochs, norm_pix
VARIANTS = {
  "tiny": (dict(name="vit_tiny"), dict(decoder_width=96, decoder_depth=2, decoder_heads=3), 7.5, False),
  "small": (*SMALL, 20.0, False),
  "small_norm_pix": (*SMALL, 8.0, True),
}


def get_config(variant="tiny"):
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/pretrain/mae_cifar10_cpu.py has no variant {variant!r}; known: {', '.join(VARIANTS)}"
    )
  encoder, decoder, epochs, norm_pix = VARIANTS[variant]
  return recipe(
    method=dict(name="mae", mask_ratio=0.75, norm_pix=norm_pix, **decoder),
    encoder=dict(patch=4, normalize="cifar10", **encoder),
    augment=dict(name="supervised", views=1, size=32, scale=(0.4, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      momentum=0.9,
      beta2=0.95,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=0.6,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=350, keep=1, keep_every=350),
    batch_size=128,
    epochs=epochs,
    log_every=50,
  )
