r"""Masked autoencoder on CIFAR-10, ViT-Ti/4, a few minutes on one GPU.

Test-time training with a masked autoencoder starts from this run: see the second and the third command.

Command:   ssl-jax train --config=configs/pretrain/mae_cifar10.py --workdir=DIR --config.data.data_dir=TFDS
           ssl-jax train --config=configs/transfer/vit_probe.py:cifar10 --config.start.workdir=DIR \
             --workdir=DIR2 --config.data.data_dir=TFDS
           ssl-jax evaluate --config=configs/ttt/mae.py:cifar10 --workdir=DIR2
Hardware:  One H100: four minutes, and a minute and a half for the classifier of the second command.
Measured:  Test-time training, which repeats the pre-training task on every test image, gains 7.3 points on
           the mean of six corruptions of CIFAR-10; see docs/results.md.
"""

from ssl_jax import recipe


def get_config():
  return recipe(
    method=dict(
      name="mae", mask_ratio=0.75, norm_pix=True, decoder_width=128, decoder_depth=4, decoder_heads=4
    ),
    encoder=dict(name="vit_tiny", patch=4, normalize="cifar10", dtype="bfloat16"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.4, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=1.5e-3,
      momentum=0.9,
      beta2=0.95,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=10.0,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=2000, keep=1),
    batch_size=1024,
    epochs=220.0,
    log_every=100,
  )
