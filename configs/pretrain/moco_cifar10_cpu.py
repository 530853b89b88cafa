r"""MoCo v2 on CIFAR-10 for two CPU cores.

Command:   ssl-jax train --config=configs/pretrain/moco_cifar10_cpu.py --workdir=DIR \
             --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/transfer/knn.py --workdir=DIR
Measured:  docs/results.md
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="moco", dim=128, mlp=True, queue_size=4096, momentum=0.99, temperature=0.1),
    encoder=dict(name="resnet10", width=16, stem="small", batch_groups=4, normalize="cifar10"),
    augment=dict(name="moco_v2", views=2, size=32),
    optimizer=dict(
      name="sgd", learning_rate=0.08, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_epochs=0.5
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=2),
    batch_size=128,
    epochs=22.0,
    log_every=100,
  )
