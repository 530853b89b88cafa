"""Test-time training with a masked autoencoder under 15 corruptions.

The same classifier without test-time training is measured beside it.

Command:   ssl-jax evaluate --config=configs/ttt/mae.py:VARIANT --workdir=DIR
           DIR is a run of configs/transfer/vit_probe.py. --config.tasks.ttt.examples=1000 uses only the
           first 1,000 images: every image takes 20 steps on 128 masks.
           --config.tasks.ttt.trainable="('encoder', 'decoder')" adapts the decoder as well.
Variants:  imagenet: as published. cifar10: six corruptions, 300 images each, half the steps, an eighth of
           the masks, and AdamW on the weight matrices only.
Expected:  ImageNet-C at severity 5, mean accuracy: 32.1 without and 43.3 with test-time training, which is
           better under all fifteen corruptions [Gandelsman et al. 2022].
Measured:  docs/results.md
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("imagenet", "cifar10")
SOME = ("clean", "gaussian_noise", "defocus_blur", "snow", "contrast", "pixelate", "jpeg_compression")


def get_config(variant="imagenet"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "cifar10":
    # Only the matrices of the transformer blocks are adapted: with the biases, norms and embedding as well,
    # the first step already lowers the accuracy of the head.
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
          trainable=("encoder/blocks/*/kernel",),
          corruptions=SOME,
          examples=300,
        )
      ),
      augment=dict(name="none"),
      data=dict(cache=True, test_split="test[100:]"),
    )
  # The copies of an image have the same pixels and differ only in their masks. The learning rate is that of
  # the released code, 1e-2 for 256 masks, scaled to 128 masks.
  return recipe(
    EvaluateConfig,
    tasks=dict(ttt=dict(steps=20, copies=128, learning_rate=0.005, momentum=0.9, curve=True)),
    augment=dict(name="none"),
    data=dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16),
  )
