r"""Learning to count on CIFAR-10 for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/counting_cifar10_cpu.py --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/pretext.py --workdir=DIR
Duration:  a quarter of an hour.
Measured:  docs/results.md
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="counting", counts=256, margin=10.0, grey=0.67),
    encoder=dict(name="resnet10", width=16, stem="small", normalize="cifar10"),
    augment=dict(name="padded_crop", views=1, size=32, pad=0, flip=True),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      weight_decay=1e-4,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=0.3,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=12.0,
    log_every=100,
  )
