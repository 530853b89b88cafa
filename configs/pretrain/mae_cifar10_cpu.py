r"""Masked autoencoder on CIFAR-10, ViT-Ti/4 or smaller, for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/mae_cifar10_cpu.py:VARIANT --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax show reconstructions --workdir=DIR
           ssl-jax evaluate --config=configs/transfer/small.py --workdir=DIR
           ssl-jax train --config=configs/transfer/finetune.py:cifar10_cpu --config.start.workdir=DIR \
             --workdir=DIR2
Variants:  tiny: half an hour. small: half an hour, with a smaller network and more epochs, for test-time
           training, which repeats the pre-training task on every test image. small_norm_pix: continues from
           `small` for a quarter of an hour (--config.start.workdir=DIR), with the pixels of each patch
           normalised.
Measured:  docs/results.md
Pixels:    tiny and small predict unnormalised pixels: patches of 4 x 4 have little structure of their own,
           and the pictures do not need statistics of the true patch. Test-time training uses normalised
           pixels, as published: without normalisation, nothing is learned from images of low contrast.
Decoder:   It is small because it processes four times as many tokens as the encoder.
"""

from ssl_jax import check_variant, recipe

SMALL = (
  dict(name="vit", width=128, depth=6, heads=4),
  dict(decoder_width=64, decoder_depth=2, decoder_heads=2),
)
# encoder, decoder, epochs, norm_pix
VARIANTS = {
  "tiny": (dict(name="vit_tiny"), dict(decoder_width=96, decoder_depth=2, decoder_heads=3), 7.5, False),
  "small": (*SMALL, 20.0, False),
  "small_norm_pix": (*SMALL, 8.0, True),
}


def get_config(variant="tiny"):
  check_variant(variant, VARIANTS, __file__)
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
