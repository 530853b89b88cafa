"""SimCLR v1, ResNet-50, on ImageNet (batch size 4096) and on CIFAR-10.

Command:   ssl-jax train --config=configs/pretrain/simclr.py:1000 --workdir=DIR --config.data.data_dir=TFDS
Variants:  100, 200, 400, 800, 1000: ImageNet, number of epochs; with _grouped the statistics of BatchNorm are
           of groups of 64 images, both views, in place of the whole batch, so that up to 64 chips reduce no
           statistics. cifar10: CIFAR-10, 1000 epochs.
Hardware:  Published on 128 TPU v3 cores: 1.5 hours for 100 epochs.
Expected:  Linear probe top-1 as listed beside each variant [Chen et al. 2020, table B.1 and section 4.2].
Schedule:  The released code counts images * epochs // batch + 1 steps. Here every epoch drops its
           incomplete batch, so a run has fewer: 312,000 instead of 312,785 for 1000 epochs of ImageNet,
           48,000 instead of 48,829 for CIFAR-10. At equal steps the learning rates differ by at most 0.24% of
           the peak rate on ImageNet (0.27% with 100 epochs) and by at most 1.7% on CIFAR-10.
"""

from ssl_jax import check_variant, recipe

# linear probe top-1, %
EXPECTED = {"100": 64.6, "200": 66.5, "400": 68.2, "800": 68.9, "1000": 69.3, "cifar10": 94.0}
GROUPED = "_grouped"
VARIANTS = (*EXPECTED, *(f"{epochs}{GROUPED}" for epochs in EXPECTED if epochs != "cifar10"))


def get_config(variant="100"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "cifar10":
    return _cifar10()
  return _imagenet(float(variant.removesuffix(GROUPED)), 64 if variant.endswith(GROUPED) else 1)


def _imagenet(epochs, batch_groups):
  return recipe(
    method=dict(name="simclr", dim=128, temperature=0.1),
    encoder=dict(
      name="resnet50",
      zero_init=True,
      kernel_init="fan_in",
      normalize="none",
      batch_groups=batch_groups,
      dtype="bfloat16",
    ),
    augment=dict(name="simclr", views=2, size=224, strength=1.0, blur=True),
    optimizer=dict(
      name="lars",
      learning_rate=0.3,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-6,
      schedule="cosine",
      warmup_epochs=10.0,
    ),  # for square-root scaling with the batch size: scaling="sqrt", learning_rate=0.075
    data=dict(name="imagenet2012", split="train", size=224, crop="host", interpolation="bicubic", workers=16),
    checkpoint=dict(every_steps=1000, keep=3, keep_every=10_000),
    batch_size=4096,
    epochs=epochs,
    log_every=100,
  )


def _cifar10():
  return recipe(
    method=dict(name="simclr", dim=128, temperature=0.5),
    encoder=dict(
      name="resnet50", stem="cifar", zero_init=True, kernel_init="fan_in", normalize="none", dtype="bfloat16"
    ),
    augment=dict(name="simclr", views=2, size=32, strength=0.5, blur=False),
    optimizer=dict(
      name="lars",
      learning_rate=1.0,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-6,
      schedule="cosine",
      warmup_epochs=10.0,
    ),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=2000, keep=3, keep_every=10_000),
    batch_size=1024,
    epochs=1000.0,
  )
