r"""Transformer classifier on a frozen masked autoencoder.

Test-time training with a masked autoencoder (configs/ttt/mae.py) starts from these networks.

Command:   ssl-jax train --config=configs/transfer/vit_probe.py:VARIANT --config.start.workdir=MAE \
             --workdir=DIR
           ssl-jax evaluate --config=configs/ttt/mae.py:DATA --workdir=DIR      (DATA: imagenet or cifar10)
Variants:  vit_large: ImageNet, as published. cifar10: for runs of configs/pretrain/mae_cifar10.py, minutes
           on a GPU. cifar10_cpu: for runs of configs/pretrain/mae_cifar10_cpu.py:small_norm_pix, on two CPU
           cores.
Expected:  Mean accuracy on ImageNet-C at severity 5: 32.1, and 43.3 after test-time training [Gandelsman et
           al. 2022].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("vit_large", "cifar10", "cifar10_cpu")


def get_config(variant="vit_large"):
  check_variant(variant, VARIANTS, __file__)
  return {"vit_large": _vit_large, "cifar10": _cifar10, "cifar10_cpu": _cifar10_cpu}[variant]()


def _vit_large():
  return recipe(
    method=dict(name="mae_probe", head_width=768, head_depth=12, head_heads=12, label_smoothing=0.1),
    # remat is for test-time training, which then moves a quarter less memory; here the encoder is frozen
    encoder=dict(name="vit_large", dtype="bfloat16", remat="dots"),
    augment=dict(name="supervised", views=1, size=224, method="bicubic"),
    # the paper's base learning rate: 1e-3 per 256 images
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      scaling="linear",
      momentum=0.9,
      beta2=0.999,
      weight_decay=0.2,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", interpolation="bicubic", workers=16),
    checkpoint=dict(every_steps=1000, keep=2),
    batch_size=1024,
    epochs=20.0,
    log_every=100,
  )


def _cifar10():
  return recipe(
    method=dict(
      name="mae_probe",
      head_width=192,
      head_depth=4,
      head_heads=6,
      label_smoothing=0.1,
      decoder_width=128,
      decoder_depth=4,
      decoder_heads=4,
    ),
    encoder=dict(name="vit_tiny", patch=4, normalize="cifar10"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.4, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      momentum=0.9,
      weight_decay=0.1,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=2.0,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=512,
    epochs=30.0,
    log_every=100,
  )


def _cifar10_cpu():
  return recipe(
    method=dict(
      name="mae_probe",
      head_width=128,
      head_depth=2,
      head_heads=4,
      label_smoothing=0.1,
      decoder_width=64,
      decoder_depth=2,
      decoder_heads=2,
    ),
    encoder=dict(name="vit", width=128, depth=6, heads=4, patch=4, normalize="cifar10"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.4, 1.0), method="bicubic"),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-3,
      momentum=0.9,
      weight_decay=0.05,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=0.3,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=1),
    batch_size=128,
    epochs=5.0,
    log_every=50,
  )
