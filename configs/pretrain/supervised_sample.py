"""Supervised classification of the embedded sample, for a CPU.

Command:   ssl-jax train --config=configs/pretrain/supervised_sample.py --workdir=runs/supervised
Data:      7,992 satellite images of EuroSAT, 32 x 32, ten kinds of land; they come with the package.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="supervised"),
    encoder=dict(name="resnet10", width=16, stem="small", normalize="eurosat"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.5, 1.0)),
    optimizer=dict(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine"),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=2),
    batch_size=128,
    epochs=15.0,
    log_every=20,
  )
