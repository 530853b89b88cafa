"""Jigsaw puzzles on ImageNet, ResNet-50, 100 to 10,000 permutations.

Command:   ssl-jax train --config=configs/pretrain/jigsaw.py:VARIANT --workdir=DIR --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Variants:  the number of permutations: 100, 1000, 2000 or 10000.
Expected:  Linear probe top-1 48.57 (100), 46.73 (2000), 48.11 (10,000) [as published by VISSL]. AlexNet,
           linear probes on conv1 to conv5: 18.2 28.8 34.0 33.9 27.1; with 1000 permutations it solves 71%
           of the puzzles [Noroozi & Favaro 2016].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("100", "1000", "2000", "10000")


def get_config(variant="2000"):
  check_variant(variant, VARIANTS, __file__)
  return recipe(
    method=dict(name="jigsaw", permutations=int(variant), tile=64, gap=21, jitter=21, grey=0.66, width=1000),
    encoder=dict(name="resnet50", normalize="centred", dtype="bfloat16"),
    augment=dict(name="padded_crop", views=1, size=255, pad=0, flip=True),
    optimizer=dict(
      name="sgd",
      learning_rate=0.1,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-4,
      schedule="step",
      milestones=(30.0, 60.0, 90.0, 100.0),
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=256, workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=256,
    epochs=105.0,
    log_every=100,
  )
