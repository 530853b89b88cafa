"""Test-time training with a masked autoencoder under the fifteen corruptions, beside the same classifier without it.

Command:   ssl-jax evaluate --config=configs/ttt/mae.py:VARIANT --workdir=DIR      for a DIR of configs/transfer/vit_probe.py
           --config.tasks.ttt.examples=1000 takes the first images only: an image costs 20 steps on 128 masks
           --config.tasks.ttt.moves="('encoder', 'decoder')" moves the decoder as well
Variants:  imagenet: as published; cifar10_cpu: six corruptions, 300 images each, a quarter of the steps and of the masks.
Expected:  ImageNet-C, severity 5, mean accuracy: without 32.1, with 43.3, better on all fifteen [Gandelsman et al. 2022].
Measured:  docs/results.md
"""

from ssl_jax.config import EvaluateConfig, recipe

VARIANTS = ("imagenet", "cifar10", "cifar10_cpu")
SOME = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_config(variant="imagenet"):
  if variant not in VARIANTS:
    raise ValueError(f"configs/ttt/mae.py has no variant {variant!r}; known: {', '.join(VARIANTS)}")
  if variant == "cifar10_cpu":
    # rate and steps were chosen on other images, test[1000:1060]
    return recipe(EvaluateConfig, tasks=dict(ttt=dict(steps=5, copies=32, learning_rate=0.003, momentum=0.9, curve=True,
                                                      corruptions=SOME, examples=300)),
                  augment=dict(name="none"), data=dict(cache=True, test_split="test[100:]"))
  if variant == "cifar10":
    return recipe(EvaluateConfig, tasks=dict(ttt=dict(steps=10, copies=64, learning_rate=0.005, momentum=0.9, curve=True,
                                                      corruptions=SOME, examples=300)),
                  augment=dict(name="none"), data=dict(cache=True, test_split="test[100:]"))
  # the same pixels in every copy, only the masks differ; the rate is the released code's 1e-2 for 256 masks
  return recipe(EvaluateConfig, tasks=dict(ttt=dict(steps=20, copies=128, learning_rate=0.005, momentum=0.9, curve=True)),
                augment=dict(name="none"),
                data=dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16))
