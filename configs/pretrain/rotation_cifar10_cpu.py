r"""Rotation prediction on CIFAR-10 for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/rotation_cifar10_cpu.py --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/pretext.py --workdir=DIR
Duration:  a quarter of an hour.
Measured:  docs/results.md. The published experiment trains a Network-in-Network for 200 epochs and predicts
           92 to 94% of the rotations correctly.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="rotation", copies="four"),
    encoder=dict(name="resnet10", width=16, stem="small", normalize="cifar10"),
    augment=dict(name="padded_crop", views=1, size=32, pad=4),
    optimizer=dict(
      name="nesterov",
      learning_rate=0.1,
      momentum=0.9,
      weight_decay=5e-4,
      schedule="cosine",
      warmup_epochs=0.5,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=4.0,
    log_every=100,
  )
