"""Test-time training with a masked autoencoder under the fifteen corruptions, beside the same classifier without it.

Command:   ssl-jax evaluate --config=configs/ttt/mae.py:VARIANT --workdir=DIR      for a DIR of configs/transfer/vit_probe.py
           --config.tasks.ttt.examples=1000 takes the first images only: an image costs 20 steps on 128 masks
           --config.tasks.ttt.moves="('encoder', 'decoder')" moves the decoder as well
Variants:  imagenet: as published; cifar10: six corruptions, 300 images each, half the steps, an eighth of the masks, AdamW on matrices.
Expected:  ImageNet-C, severity 5, mean accuracy: without 32.1, with 43.3, better on all fifteen [Gandelsman et al. 2022].
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("imagenet", "cifar10")
SOME = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_config(variant="imagenet"):
  if variant not in VARIANTS:
    raise ValueError(f"configs/ttt/mae.py has no variant {variant!r}; known: {', '.join(VARIANTS)}")
  if variant == "cifar10":
    # The matrices of the blocks alone: with biases, norms and embedding the first step already misleads the head.
    return recipe(
      EvaluateConfig,
      tasks=dict(
        ttt=dict(
          steps=10,
          copies=16,
          optimizer="adamw",
          learning_rate=5e-5,
          momentum=0.0,
          curve=True,
          moves=("encoder/blocks/*/kernel",),
          corruptions=SOME,
          examples=300,
        )
      ),
      augment=dict(name="none"),
      data=dict(cache=True, test_split="test[100:]"),
    )
  # the same pixels in every copy, only the masks differ; the rate is the released code's 1e-2 for 256 masks
  return recipe(
    EvaluateConfig,
    tasks=dict(ttt=dict(steps=20, copies=128, learning_rate=0.005, momentum=0.9, curve=True)),
    augment=dict(name="none"),
    data=dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16),
  )
