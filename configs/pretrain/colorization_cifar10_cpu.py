r"""Colorization on CIFAR-10 for two CPU cores.

Command:   ssl-jax prepare colour_prior --config=configs/pretrain/colorization_cifar10_cpu.py \
             --config.data.data_dir=TFDS --output=prior.json
           ssl-jax train --config=configs/pretrain/colorization_cifar10_cpu.py:prior.json --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/pretext.py --workdir=DIR
           ssl-jax show colours --workdir=DIR
Duration:  a quarter of an hour.
Measured:  docs/results.md
"""

from ssl_jax import recipe
from ssl_jax.methods.pretext.colour_bins import read_prior


def get_config(prior=""):
  return recipe(
    method=dict(name="colorization", prior=read_prior(prior)),
    encoder=dict(name="resnet10", width=16, stem="small", output_stride=4, normalize="centred"),
    augment=dict(name="padded_crop", views=1, size=32, pad=0, flip=True),
    optimizer=dict(
      name="adamw",
      learning_rate=2e-3,
      weight_decay=1e-3,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=0.3,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=4.0,
    log_every=100,
  )
