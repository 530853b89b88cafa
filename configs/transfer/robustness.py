"""Error of a classifier under 15 corruptions at 5 severities.

Command:   ssl-jax evaluate --config=configs/transfer/robustness.py:VARIANT --workdir=DIR
           The corruptions are applied on the fly; --config.tasks.robustness.released=FOLDER reads the
           released files of CIFAR-10-C or ImageNet-C instead.
Variants:  imagenet, cifar10: they differ in how test images are resized. cifar10 uses the first 2,000 test
           images (option `examples`).
Expected:  ResNet-50 on ImageNet-C: clean error 23.9, mCE 76.7 [Hendrycks & Dietterich 2019].
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("imagenet", "cifar10")


def get_config(variant="imagenet"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "cifar10":
    return recipe(EvaluateConfig, tasks=dict(robustness=dict(examples=2000)), data=dict(cache=True))
  return recipe(
    EvaluateConfig,
    tasks=dict(robustness=dict()),
    data=dict(test_split="validation", crop_ratio=0.875, workers=16),
  )
