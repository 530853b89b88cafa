"""Masked autoencoder on the embedded sample, a few minutes on a CPU.

Command:   ssl-jax train --config=configs/pretrain/mae_sample.py --workdir=runs/mae
           ssl-jax show reconstructions --workdir=runs/mae
Data:      7,992 satellite images of EuroSAT, 32 x 32, ten kinds of land; they come with the package.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(
      name="mae", mask_ratio=0.75, norm_pix=False, decoder_width=64, decoder_depth=2, decoder_heads=2
    ),
    encoder=dict(name="vit", width=128, depth=6, heads=4, patch=4, normalize="eurosat"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.6, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=2e-3,
      momentum=0.9,
      beta2=0.95,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=125, keep=1, keep_every=125),
    batch_size=128,
    epochs=20.0,
    log_every=20,
  )
