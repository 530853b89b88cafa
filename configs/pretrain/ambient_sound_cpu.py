r"""Ambient sound with a small ResNet, for two CPU cores.

Command:   ssl-jax prepare sounds clusters=8 bits=8 size=80 --data_dir=CLIPS --output=DIR
           ssl-jax train --config=configs/pretrain/ambient_sound_cpu.py:VARIANT --workdir=RUN \
             --config.data.data_dir=DIR
           ssl-jax evaluate --config=configs/transfer/sound.py --workdir=RUN
Variants:  clusters, bits: as in ambient_sound.py; 8 bits.
Duration:  a few minutes.
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("clusters", "bits")


def get_config(variant="clusters"):
  check_variant(variant, VARIANTS, __file__)
  return recipe(
    method=dict(name="ambient_sound", target=variant),
    encoder=dict(name="resnet10", width=16, stem="imagenet"),
    host=dict(name="image") if variant == "clusters" else dict(name="image_bits", bits=8),
    augment=dict(name="padded_crop", views=1, size=72, pad=0),
    optimizer=dict(
      name="sgd",
      learning_rate=0.03 if variant == "clusters" else 0.1,  # the mean over the bits has small gradients
      momentum=0.9,
      weight_decay=5e-4,
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="sounds", split="train", size=80, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=32,
    epochs=40.0,
    log_every=20,
  )
