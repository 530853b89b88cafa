"""Supervised ResNet-50 and ViTs on ImageNet, and ResNet-18 on CIFAR-10.

Self-supervised methods are compared with these networks as upper references.

Command:   ssl-jax train --config=configs/pretrain/supervised.py --workdir=DIR --config.data.data_dir=TFDS
Variants:  imagenet: ResNet-50. cifar10: ResNet-18. vit_base, vit_large, vit_huge: ViTs on ImageNet from
           scratch.
Expected:  imagenet: 76.1% top-1 after 90 epochs [torchvision]. cifar10: about 95% after 200 epochs [as
           published; we use random-resized crops, the published recipe pads by four pixels and crops].
           ViT-B, L, H: 82.3, 82.6, 83.1 with the moving average of the weights (evaluate with
           --config.weights=ema) [He et al. 2022, table 11].
"""

from ssl_jax import check_variant, recipe

VARIANTS = ("imagenet", "cifar10", "vit_base", "vit_large", "vit_huge")


def get_config(variant="imagenet"):
  check_variant(variant, VARIANTS, __file__)
  if variant.startswith("vit"):
    return _vit(variant)
  return _cifar10() if variant == "cifar10" else _imagenet()


def _imagenet():
  return recipe(
    method=dict(name="supervised"),
    encoder=dict(name="resnet50", zero_init=True, dtype="bfloat16"),
    augment=dict(name="supervised", views=1, size=224),
    optimizer=dict(
      name="sgd",
      learning_rate=0.1,
      scaling="linear",
      momentum=0.9,
      weight_decay=1e-4,
      schedule="step",
      milestones=(30.0, 60.0, 80.0),
      warmup_epochs=5.0,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", workers=16),
    checkpoint=dict(every_steps=5000, keep=3),
    batch_size=256,
    epochs=90.0,
    log_every=100,
  )


def _cifar10():
  return recipe(
    method=dict(name="supervised"),
    encoder=dict(name="resnet18", stem="cifar", normalize="cifar10", dtype="bfloat16"),
    augment=dict(name="supervised", views=1, size=32, scale=(0.4, 1.0)),
    optimizer=dict(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine"),
    data=dict(name="cifar10", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=2000, keep=3),
    batch_size=128,
    epochs=200.0,
  )


def _vit(name):
  base = name == "vit_base"
  return recipe(
    method=dict(name="supervised", label_smoothing=0.1, mixup=0.8, cutmix=1.0, ema=0.9999),
    encoder=dict(name=name, pool="mean", drop_path=0.1 if base else 0.2, dtype="bfloat16"),
    augment=dict(name="finetune", views=1, size=224, erase=0.0),
    optimizer=dict(
      name="adamw",
      learning_rate=1e-4,
      scaling="linear",
      momentum=0.9,
      beta2=0.95,
      weight_decay=0.3,
      weight_decay_on="matrices",
      schedule="cosine",
      warmup_epochs=20.0,
    ),
    data=dict(name="imagenet2012", split="train", size=224, crop="host", interpolation="bicubic", workers=16),
    checkpoint=dict(every_steps=1000, keep=2),
    batch_size=4096,
    epochs=300.0 if base else 200.0,
    log_every=100,
  )
