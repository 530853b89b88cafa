r"""Colorization on ImageNet, ResNet-50, perhaps with colour rebalancing.

Command:   ssl-jax prepare colour_prior --config=configs/pretrain/colorization.py \
             --config.data.data_dir=TFDS --output=prior.json
           ssl-jax train --config=configs/pretrain/colorization.py:prior.json --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Variants:  The variant is the path of the file that the first command writes. The file's numbers become part
           of the config, so the checkpoints do not depend on the file. With it, rare colours have a larger
           weight in the loss ("class + rebalancing" in the paper); without it, all 313 colours have the
           same weight ("class").
Expected:  ResNet-50, linear probe: top-1 40.1 [as published by VISSL]. AlexNet, linear probes on conv1 to
           conv5: 13.1 24.8 31.0 32.6 31.8; area under the curve of errors: 89.5 with all pixels weighted
           equally, 67.3 with rare colours weighted as much as frequent ones [Zhang et al. 2016]. The
           optimiser for ResNet-50 is our own choice.
"""

from ssl_jax import recipe
from ssl_jax.methods.pretext.colour_bins import read_prior


def get_config(prior=""):
  return recipe(
    method=dict(name="colorization", prior=read_prior(prior), neighbours=10),
    encoder=dict(name="resnet50", output_stride=8, dtype="bfloat16"),
    augment=dict(name="padded_crop", views=1, size=224, pad=0, flip=True),
    optimizer=dict(
      name="adamw",
      learning_rate=3e-4,
      momentum=0.9,
      beta2=0.99,
      weight_decay=1e-3,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="imagenet2012", split="train", size=256, workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=256,
    epochs=30.0,
    log_every=100,
  )
