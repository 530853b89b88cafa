"""SimCLR on the embedded sample, for a CPU.

Command:   ssl-jax train --config=configs/pretrain/simclr_sample.py --workdir=runs/simclr
Data:      7,992 satellite images of EuroSAT, 32 x 32, ten kinds of land; they come with the package.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(name="simclr", dim=64, temperature=0.2),
    encoder=dict(
      name="resnet10", width=16, stem="small", zero_init=True, kernel_init="fan_in", normalize="none"
    ),
    augment=dict(name="simclr", views=2, size=32, scale=(0.3, 1.0), strength=0.5, blur=False),
    optimizer=dict(
      name="lars",
      learning_rate=1.0,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-6,
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=2),
    batch_size=256,
    epochs=30.0,
    log_every=20,
  )
